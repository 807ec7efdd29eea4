"""How vLLM ends: each test ends an engine of its own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.serving.engine import BASE, SHUTDOWN_SECONDS, Engine, completion, running, until
from tests.serving.models import ADAPTERS, Files

PROMPT = "what is the colour of the red fox"


@pytest.fixture
def ending_engine(files: Files, tmp_path: Path) -> Iterator[Engine]:
    with running(files.model, tmp_path / "engine", "--max-loras", "1") as engine:
        yield engine


def test_sigterm_completes_requests_behind_a_healthy_answer(ending_engine: Engine) -> None:
    """Why the proxy answers readiness, and why it lets the engine end only after the last request."""
    stream = ending_engine.stream(BASE, PROMPT, 400)
    events = [next(stream)]
    core = ending_engine.core()
    os.kill(core, signal.SIGSTOP)  # the stream must not be complete before the rest is observed
    try:
        ending_engine.process.terminate()
        until(lambda: is_refused(ending_engine))
        # The refusal breaks its connection, so this is another one.
        health = httpx2.get(f"{ending_engine.url}/health", trust_env=False).status_code
    finally:
        os.kill(core, signal.SIGCONT)
    events += stream

    assert health == 200
    assert events[-1]["choices"][0]["finish_reason"] == "length"
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


def is_refused(engine: Engine) -> bool:
    """Return whether a new request is refused; one that was accepted before the engine was stopped is not answered."""
    try:
        return engine.http.post("/v1/completions", json=completion(BASE, PROMPT, 1), timeout=1).status_code == 500
    except httpx2.ReadTimeout:
        return False
