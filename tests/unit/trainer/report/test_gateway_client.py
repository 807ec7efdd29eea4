import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.timeouts import TIMEOUT
from trainyard_crds.report import Progress, Report
from trainyard_crds.runconfig import Intake
from trainyard_trainer.clock import SystemClock
from trainyard_trainer.report.gateway_client import GatewayClient, PostError, create_sender, seconds_until_next
from trainyard_trainer.report.run_log import RunLog


@pytest.mark.parametrize(
    ("since_last", "failures", "urgent", "seconds"),
    [
        pytest.param(float("inf"), 0, False, 0, id="the first report is sent at once"),
        pytest.param(0.5, 0, False, 1.5, id="at most one in two seconds"),
        pytest.param(0.0, 0, True, 0, id="a change of stage does not wait"),
        pytest.param(0.0, 1, True, 0.5, id="an urgent report waits after a failure"),
        pytest.param(0.0, 3, False, 2, id="the backoff doubles with each failure"),
        pytest.param(1.0, 30, False, 4, id="the backoff is at most five seconds"),
    ],
)
def test_seconds_until_next_report(since_last: float, failures: int, urgent: bool, seconds: float) -> None:
    assert seconds_until_next(since_last=since_last, failures=failures, urgent=urgent) == seconds


def report(sequence: int) -> Report:
    return Report(sequence=sequence, owner_epoch=1, progress=Progress(step=sequence))


class Gateway:
    """Accepts reports after the first `errors`; every post waits for `gate`."""

    def __init__(self, errors: list[PostError]) -> None:
        self.accepted: list[int] = []
        self.gate = threading.Event()
        self.called = threading.Event()
        self._errors = errors

    def __call__(self, body: bytes) -> PostError | None:
        self.called.set()
        self.gate.wait(TIMEOUT)
        if self._errors:
            return self._errors.pop(0)
        self.accepted.append(json.loads(body)["sequence"])
        return None


@pytest.fixture
def long_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `close` wait until the last report was sent."""
    monkeypatch.setattr("trainyard_trainer.report.gateway_client.FLUSH_SECONDS", TIMEOUT)


@pytest.mark.usefixtures("long_flush")
def test_only_the_latest_report_is_sent_and_submit_does_not_block(tmp_path: Path) -> None:
    gateway = Gateway([])
    client = GatewayClient(send=gateway, clock=SystemClock(), run_log=RunLog(tmp_path / "log", SystemClock()))
    client.start()
    client.submit(report(1))
    assert gateway.called.wait(TIMEOUT)
    for sequence in range(2, 50):
        client.submit(report(sequence))
    gateway.gate.set()
    client.close()
    assert gateway.accepted == [1, 49]


@pytest.mark.usefixtures("long_flush")
def test_rejected_report_is_retried_and_logged_once(tmp_path: Path) -> None:
    gateway = Gateway([PostError("HTTP 403", "Rejected at 1."), PostError("HTTP 403", "Rejected at 2.")])
    gateway.gate.set()
    client = GatewayClient(send=gateway, clock=SystemClock(), run_log=RunLog(tmp_path / "log", SystemClock()))
    client.start()
    client.submit(report(1))
    client.close()
    assert gateway.accepted == [1]
    [line] = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["message"].startswith("Rejected at 1.")


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


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.handler: type[Handler] = type("OneHandler", (Handler,), {"seen": []})
        super().__init__(("127.0.0.1", 0), self.handler)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def intake(tmp_path: Path, server: Server) -> Intake:
    token = tmp_path / "token"
    token.write_text("secret\n")
    return Intake(url=f"http://127.0.0.1:{server.server_port}/a/b?c=d", token_file=str(token))


def test_sender_posts_the_body_with_the_current_token(tmp_path: Path, server: Server) -> None:
    where = intake(tmp_path, server)
    send = create_sender(where)
    assert send(b"{}") is None
    Path(where.token_file).write_text("rotated")
    assert send(b"{}") is None
    assert server.handler.seen == [
        ("/a/b?c=d", "Bearer secret", b"{}"),
        ("/a/b?c=d", "Bearer rotated", b"{}"),
    ]


def test_rejection_names_status_and_reason(tmp_path: Path, server: Server) -> None:
    server.handler.status = 403
    error = create_sender(intake(tmp_path, server))(b"{}")
    assert error == PostError("HTTP 403", "The progress intake rejected a report with HTTP 403: token of another pod")


def test_unreachable_intake(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    error = create_sender(Intake(url="http://127.0.0.1:1/x", token_file=str(token)))(b"{}")
    assert error is not None
    assert error.kind == "unreachable"


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """Create a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / f"{name}.crt", directory / f"{name}.key"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_token_is_sent_only_to_a_gateway_with_a_certificate_of_the_ca(tmp_path: Path, server: Server) -> None:
    own, key = certificate(tmp_path, "own")
    other, _ = certificate(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    ca = tmp_path / "ca.crt"
    plain = intake(tmp_path, server)
    where = Intake(url=plain.url.replace("http:", "https:"), token_file=plain.token_file, ca_file=str(ca))
    send = create_sender(where)
    ca.write_bytes(other.read_bytes())
    error = send(b"{}")
    assert error is not None
    assert "certificate verify failed" in error.message
    ca.write_bytes(own.read_bytes())
    assert send(b"{}") is None
    assert len(server.handler.seen) == 1
