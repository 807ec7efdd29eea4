"""The real entry point with several processes: it starts itself again for each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.timeouts import PATIENCE
from tests.unit.trainer.toy import run_config
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Termination

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


def start(tmp_path: Path, fault: str = "", **blocks: Any) -> tuple[Termination, str]:
    """The last word of one start, which agrees with its code, and what it wrote on stderr."""
    path, log = tmp_path / "run.json", tmp_path / "termination-log"
    path.write_text(json.dumps(run_config(tmp_path / "run", processes=2, **blocks).to_json()))
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer_image", ".")),
        "OMP_NUM_THREADS": "1",
        "TOY_FAULT": fault,
        "CUDA_VISIBLE_DEVICES": "",
        TERMINATION_LOG_ENV: str(log),
    }
    words = [sys.executable, str(ROOT / "tests/unit/trainer/toy_command.py"), "train", "--config", str(path)]
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    word = Termination.model_validate_json(log.read_bytes())
    assert word.exit_code == done.returncode
    return word, done.stderr


def test_a_group_is_stopped_and_goes_on(tmp_path: Path) -> None:
    word, _ = start(tmp_path, "term:loss:7")  # each process, in its seventh pass
    assert (word.exit_code, word.reason) == (75, "Interrupted")
    assert word.checkpoints
    assert word.checkpoints[-1].step == word.step
    word, _ = start(tmp_path)
    assert (word.exit_code, word.step) == (0, word.total_steps)
    assert sorted(path.name for path in (tmp_path / "run/owner").iterdir()) == ["1.json", "2.json"]


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    word, stderr = start(tmp_path, gpus=2)
    assert (word.exit_code, word.reason) == (64, "BadConfiguration")
    assert "gpus is 2, but no CUDA device is available" in word.message
    assert stderr.count("BadConfiguration") == 1
