"""A complete run of the real trainer, in its own process, with a gateway that never accepts a report."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.timeouts import TIMEOUT, wait_until
from tests.unit.trainer import reporting_command
from tests.unit.trainer.fork_server import start_program
from tests.unit.trainer.toy import metric_lines, run_config
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Outcome, Termination

pytestmark = pytest.mark.slow

STEPS = 12
ANSWER = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\nboom"


class FakeGateway:
    """A port in place of the gateway.

    Attributes:
        url: Report URL at that port.
        connections: Number of accepted connections.
    """

    def __init__(self, port: int) -> None:
        self.url, self.connections = f"http://127.0.0.1:{port}/report", 0


@contextmanager
def closed_port() -> Iterator[FakeGateway]:
    """A port at which no server listens."""
    with socket.socket() as reserved:  # bound to reserve the port, but not listening
        reserved.bind(("127.0.0.1", 0))
        yield FakeGateway(reserved.getsockname()[1])


@contextmanager
def _listening(answer: bytes) -> Iterator[FakeGateway]:
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fake = FakeGateway(listener.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                fake.connections += 1
                kept.append(connection)
                if answer:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield fake
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


@contextmanager
def silent() -> Iterator[FakeGateway]:
    """A server that accepts connections and never answers."""
    with _listening(b"") as fake:
        yield fake


@contextmanager
def failing() -> Iterator[FakeGateway]:
    """A server that always answers 500."""
    with _listening(ANSWER) as fake:
        yield fake


def train(folder: Path, url: str, *, is_answered: bool) -> Termination:
    """Run the trainer in its own process and return its termination."""
    (folder / "token").write_text("secret")
    config = run_config(folder / "run", progress={"url": url, "tokenFile": str(folder / "token")})
    (folder / "run.json").write_text(json.dumps(config.to_json()))
    environ = {
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "ANSWERED": "yes" if is_answered else "",
        TERMINATION_LOG_ENV: str(folder / "termination"),
    }
    command, output = ("train", "--config", str(folder / "run.json")), folder / "output"
    process = start_program(reporting_command.run, *command, environ=environ, directory=folder, output=output)
    process.join(TIMEOUT)
    assert process.exitcode == 0, output.read_text()
    assert "Traceback" not in output.read_text()
    return Termination.model_validate_json((folder / "termination").read_bytes())


@pytest.mark.parametrize(
    ("gateway", "connections"),
    [
        pytest.param(closed_port, [0], id="nothing listens"),
        pytest.param(silent, [1], id="never answers"),
        pytest.param(failing, range(1, 1000), id="always answers 500"),
    ],
)
def test_run_completes_without_a_gateway(gateway: Any, connections: Any, tmp_path: Path) -> None:
    with gateway() as fake:
        termination = train(tmp_path, fake.url, is_answered=gateway is not silent)
        wait_until(lambda: fake.connections in connections)
    assert (termination.outcome, termination.step, termination.exit_code) == (Outcome.FINISHED, STEPS, 0)
    assert {"loss", "evalLoss"} <= set(termination.metrics)
    assert termination.checkpoints[-1].step == STEPS
    [best] = [checkpoint for checkpoint in termination.checkpoints if checkpoint.best]
    assert "evalLoss" in best.metrics
    assert termination.exports
    assert [line["step"] for line in metric_lines(tmp_path / "run")][-1] == STEPS
    lines = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
    warnings = [line["message"] for line in lines if line["type"] == "ProgressNotReported"]
    assert len(warnings) == (gateway is not silent), "an error must be logged once, not with every report"
    assert all(message.endswith("Training continues; the report is retried.") for message in warnings)
