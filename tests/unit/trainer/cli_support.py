"""Run the trainer's command line inside the test process."""

import sys
from pathlib import Path

import pytest

from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Termination
from trainyard_trainer.cli import run_command
from trainyard_trainer.stop import StopFlag


def run_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> Termination:
    """Run a command line in this process and return its termination message."""
    log = tmp_path / "termination-log"
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(log))
    monkeypatch.setattr(sys, "argv", ["trainyard-trainer", *arguments])
    exit_code = run_command(StopFlag())
    termination = Termination.model_validate_json(log.read_bytes())
    assert termination.exit_code == exit_code
    return termination
