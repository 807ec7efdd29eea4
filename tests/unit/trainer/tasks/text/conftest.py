"""Fixtures of the text tests."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.tasks.text.data_cli import Run
from trainyard_trainer.cli import run_command
from trainyard_trainer.stop import StopFlag


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs a `data` command and returns its exit code, JSON output and stderr."""
    monkeypatch.setenv("TRAINYARD_TERMINATION_LOG", str(tmp_path / "termination"))

    def command(*words: object) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["trainyard-trainer", "data", *map(str, words), "--json"])
        code = run_command(StopFlag())
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, json.loads(out) if out else None, err

    return command
