"""How vLLM ends: each test ends an engine of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.serving.engine import BASE, SHUTDOWN_SECONDS, Engine, running, until
from tests.serving.models import ADAPTERS, Files

PROMPT = "what is the colour of the red fox"


@pytest.fixture
def ending_engine(files: Files, tmp_path: Path) -> Iterator[Engine]:
    with running(files.model, tmp_path / "engine", "--max-loras", "1") as engine:
        yield engine


def test_sigterm_completes_requests_behind_a_healthy_answer(ending_engine: Engine) -> None:
    """Why the proxy answers readiness, and why it lets the engine end only after the last request."""
    events = ending_engine.stream(BASE, PROMPT, 480, n=8)
    received = [next(events)]

    ending_engine.process.terminate()

    until(lambda: ending_engine.complete(BASE, PROMPT, 1).status_code >= 500)
    assert ending_engine.http.get("/health").status_code == 200
    received += events
    finished = [choice for event in received for choice in event["choices"] if choice["finish_reason"]]
    assert {choice["finish_reason"] for choice in finished} == {"length"}
    assert len(finished) == 8
    assert ending_engine.process.wait(SHUTDOWN_SECONDS) == 0


def test_missing_files_of_a_loaded_adapter_end_the_engine_with_exit_code_0(
    ending_engine: Engine, files: Files, tmp_path: Path
) -> None:
    """Why files are removed only after an unload, and why exit code 0 is not health."""
    for name in ADAPTERS[:2]:
        shutil.copytree(files.adapters[name], tmp_path / name)
        ending_engine.load(name, tmp_path / name).raise_for_status()
    ending_engine.answer(ADAPTERS[1], PROMPT)  # there is one place in memory, and now it has it

    shutil.rmtree(tmp_path / ADAPTERS[0])

    assert ending_engine.complete(ADAPTERS[0], PROMPT).status_code == 500
    assert ending_engine.process.wait(SHUTDOWN_SECONDS) == 0
    with pytest.raises(httpx2.ConnectError):
        ending_engine.complete(BASE, PROMPT)
