import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainyard_crds.report import Progress, Report
from trainyard_crds.runconfig import Intake
from trainyard_trainer.clock import SystemClock
from trainyard_trainer.report.intake import IntakePoster, Problem, create_sender, seconds_until_next
from trainyard_trainer.report.run_log import RunLog


@pytest.mark.parametrize(
    ("since_last", "failures", "urgent", "seconds"),
    [
        pytest.param(float("inf"), 0, False, 0, id="the first report goes at once"),
        pytest.param(0.5, 0, False, 1.5, id="at most one in two seconds"),
        pytest.param(0.0, 0, True, 0, id="a change of stage does not wait"),
        pytest.param(0.0, 1, True, 0.5, id="after a failure even that waits"),
        pytest.param(0.0, 3, False, 2, id="longer with every failure"),
        pytest.param(1.0, 30, False, 4, id="but never longer than five seconds"),
    ],
)
def test_when_the_next_report_goes(since_last: float, failures: int, urgent: bool, seconds: float) -> None:
    assert seconds_until_next(since_last=since_last, failures=failures, urgent=urgent) == seconds


def report(sequence: int) -> Report:
    return Report(sequence=sequence, owner_epoch=1, progress=Progress(step=sequence))


class Gateway:
    """Takes reports; the first `problems` are refused, the first waits for `gate`."""

    def __init__(self, problems: list[Problem]) -> None:
        self.taken: list[int] = []
        self.gate = threading.Event()
        self.asked = threading.Event()
        self._problems = problems

    def __call__(self, body: bytes) -> Problem | None:
        self.asked.set()
        self.gate.wait(5)
        if self._problems:
            return self._problems.pop(0)
        self.taken.append(json.loads(body)["sequence"])
        return None


def test_only_the_latest_report_matters_and_training_never_waits(tmp_path: Path) -> None:
    gateway = Gateway([])
    poster = IntakePoster(send=gateway, clock=SystemClock(), run_log=RunLog(tmp_path / "log", SystemClock()))
    poster.start()
    poster.offer(report(1))
    assert gateway.asked.wait(5)
    for sequence in range(2, 50):
        poster.offer(report(sequence))
    gateway.gate.set()
    poster.close()
    assert gateway.taken == [1, 49]


def test_a_refused_report_is_tried_again_and_told_once(tmp_path: Path) -> None:
    gateway = Gateway([Problem("HTTP 403", "Refused at 1."), Problem("HTTP 403", "Refused at 2.")])
    gateway.gate.set()
    poster = IntakePoster(send=gateway, clock=SystemClock(), run_log=RunLog(tmp_path / "log", SystemClock()))
    poster.start()
    poster.offer(report(1))
    poster.close()
    assert gateway.taken == [1]
    [line] = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["message"].startswith("Refused at 1.")


class Handler(BaseHTTPRequestHandler):
    status = 204
    seen: list[tuple[str, str | None, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.status)
        self.end_headers()
        if self.status != 204:
            self.wfile.write(b"token of another pod")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("OneHandler", (Handler,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def intake(tmp_path: Path, server: ThreadingHTTPServer) -> Intake:
    token = tmp_path / "token"
    token.write_text("secret\n")
    return Intake(url=f"http://127.0.0.1:{server.server_port}/a/b?c=d", token_file=str(token))


def test_the_body_goes_to_the_url_as_it_is_with_the_token_as_it_is_now(
    tmp_path: Path, server: ThreadingHTTPServer
) -> None:
    where = intake(tmp_path, server)
    send = create_sender(where)
    assert send(b"{}") is None
    Path(where.token_file).write_text("rotated")
    assert send(b"{}") is None
    assert server.RequestHandlerClass.seen == [  # type: ignore[attr-defined]
        ("/a/b?c=d", "Bearer secret", b"{}"),
        ("/a/b?c=d", "Bearer rotated", b"{}"),
    ]


def test_a_refusal_names_status_and_reason(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    server.RequestHandlerClass.status = 403  # type: ignore[attr-defined]
    problem = create_sender(intake(tmp_path, server))(b"{}")
    assert problem == Problem("HTTP 403", "The progress intake refused a report with HTTP 403: token of another pod")


def test_an_intake_that_is_not_there(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    problem = create_sender(Intake(url="http://127.0.0.1:1/x", token_file=str(token)))(b"{}")
    assert problem is not None
    assert problem.kind == "unreachable"


def test_a_certificate_the_ca_did_not_sign_is_not_trusted(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    where = Intake(
        url=f"https://127.0.0.1:{server.server_port}/x", token_file=str(token), ca_file=str(tmp_path / "missing.crt")
    )
    problem = create_sender(where)(b"{}")
    assert problem is not None
    assert problem.kind == "unreachable"
