"""A whole run of the real trainer, in a process of its own, whose gateway is of no use from beginning to end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.timeouts import TIMEOUT, wait_until
from tests.unit.trainer.toy import metric_lines, run_config
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Outcome, Termination

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
STEPS = 12
ANSWER = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\nboom"
RUN = """
import os, sys, threading
from tests.unit.timeouts import TIMEOUT
from tests.unit.trainer.toy import play
from trainyard_trainer.main import main
from trainyard_trainer.report import gateway_client

post, append, close = gateway_client._post, gateway_client.RunLog.append, gateway_client.GatewayClient.close
training, asked, told = threading.current_thread(), threading.Event(), threading.Event()
def watched(*arguments):
    assert threading.current_thread() is not training, "the step loop waits for the network"
    asked.set()
    return post(*arguments)
def tell(log, *, kind, **event):
    append(log, kind=kind, **event)
    if kind == "ProgressNotReported":
        told.set()
def end(poster):
    assert (told if os.environ["ANSWERED"] else asked).wait(TIMEOUT)
    close(poster)
gateway_client._post, gateway_client.RunLog.append, gateway_client.GatewayClient.close = watched, tell, end
gateway_client._TIMEOUT_SECONDS, gateway_client.FLUSH_SECONDS = 3600.0, 0.5
play("")
sys.exit(main())
"""
"""The trainer's entry point. A post from the thread that trains would end the run, and one that training or its end
waits for (but for half a second) would last an hour where nobody answers. The run is not over before the first post is,
or where nothing answers has begun."""


class Useless:
    """A gateway's port.

    Attributes:
        url: Where it is.
        connections: How many were accepted.
    """

    def __init__(self, port: int) -> None:
        self.url, self.connections = f"http://127.0.0.1:{port}/report", 0


@contextmanager
def nobody() -> Iterator[Useless]:
    """Nothing listens."""
    with socket.socket() as reserved:  # bound, so that nobody else gets the port; not listening
        reserved.bind(("127.0.0.1", 0))
        yield Useless(reserved.getsockname()[1])


@contextmanager
def _listening(answer: bytes) -> Iterator[Useless]:
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        useless = Useless(listener.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                useless.connections += 1
                kept.append(connection)
                if answer:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield useless
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


@contextmanager
def silent() -> Iterator[Useless]:
    """Takes everything and never answers."""
    with _listening(b"") as useless:
        yield useless


@contextmanager
def failing() -> Iterator[Useless]:
    """Answers 500, always."""
    with _listening(ANSWER) as useless:
        yield useless


def train(folder: Path, url: str, *, is_answered: bool) -> Termination:
    """A whole run in a process of its own; its last word."""
    (folder / "token").write_text("secret")
    config = run_config(folder / "run", progress={"url": url, "tokenFile": str(folder / "token")})
    (folder / "run.json").write_text(json.dumps(config.to_json()))
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer_image", ".")),
        "OMP_NUM_THREADS": "1",
        "ANSWERED": "yes" if is_answered else "",
        TERMINATION_LOG_ENV: str(folder / "termination"),
    }
    command = [sys.executable, "-c", RUN, "train", "--config", str(folder / "run.json")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return Termination.model_validate_json((folder / "termination").read_bytes())


@pytest.mark.parametrize(
    ("gateway", "connections"),
    [
        pytest.param(nobody, [0], id="nothing listens"),
        pytest.param(silent, [1], id="it accepts and never answers"),
        pytest.param(failing, range(1, 1000), id="it always answers 500"),
    ],
)
def test_a_run_without_a_gateway_is_whole(gateway: Any, connections: Any, tmp_path: Path) -> None:
    with gateway() as useless:
        termination = train(tmp_path, useless.url, is_answered=gateway is not silent)
        wait_until(lambda: useless.connections in connections)
    assert (termination.outcome, termination.step, termination.exit_code) == (Outcome.FINISHED, STEPS, 0)
    assert {"loss", "evalLoss"} <= set(termination.metrics)
    assert termination.checkpoints[-1].step == STEPS
    [best] = [checkpoint for checkpoint in termination.checkpoints if checkpoint.best]
    assert "evalLoss" in best.metrics
    assert termination.exports
    assert [line["step"] for line in metric_lines(tmp_path / "run")][-1] == STEPS
    lines = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
    told = [line["message"] for line in lines if line["type"] == "ProgressNotReported"]
    assert len(told) == (gateway is not silent), "a problem is told once, not with every report"
    assert all(message.endswith("Training goes on; reporting is tried again.") for message in told)
