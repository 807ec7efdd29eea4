"""The real entry point with several processes: the launcher starts a copy of itself for each."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.timeouts import TIMEOUT
from tests.unit.trainer import toy_command
from tests.unit.trainer.fork_server import Program, start_program
from tests.unit.trainer.toy import run_config
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Termination

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


def start(
    tmp_path: Path, fault: str = "", program: Program = toy_command.run_fresh, **blocks: Any
) -> tuple[Termination, str]:
    """Run one attempt and return its termination message and output."""
    path, log, output = tmp_path / "run.json", tmp_path / "termination-log", tmp_path / "output"
    path.write_text(json.dumps(run_config(tmp_path / "run", processes=2, **blocks).to_json()))
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer_image", ".")),
        "OMP_NUM_THREADS": "1",
        "TOY_FAULT": fault,
        "CUDA_VISIBLE_DEVICES": "",
        TERMINATION_LOG_ENV: str(log),
    }
    command = ("train", "--config", str(path))
    process = start_program(program, *command, environ=environ, directory=tmp_path, output=output)
    process.join(TIMEOUT)
    termination = Termination.model_validate_json(log.read_bytes())
    assert termination.exit_code == process.exitcode
    return termination, output.read_text()


def test_group_is_stopped_and_resumed(tmp_path: Path) -> None:
    termination, _ = start(tmp_path, "term:loss:7")  # each process, in its seventh pass
    assert (termination.exit_code, termination.reason) == (75, "Interrupted")
    assert termination.checkpoints
    assert termination.checkpoints[-1].step == termination.step
    termination, _ = start(tmp_path, program=toy_command.run)
    assert (termination.exit_code, termination.step) == (0, termination.total_steps)
    assert sorted(path.name for path in (tmp_path / "run/owner").iterdir()) == ["1.json", "2.json"]


def test_configuration_error_is_printed_once(tmp_path: Path) -> None:
    termination, output = start(tmp_path, gpus=2)
    assert (termination.exit_code, termination.reason) == (64, "BadConfiguration")
    assert "gpus is 2, but no CUDA device is available" in termination.message
    assert output.count("BadConfiguration") == 1
