"""As many processes as there are GPUs train together, over NCCL; a group of one where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.trainer.group.runs import ABSOLUTE, RELATIVE, config, weights
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.group.interfaces import free_port
from trainyard_trainer.group.membership import Node, local_members


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_group_trains_like_one_process(tmp_path: Path, tiny_model: Path, method: str) -> None:
    alone = config(tmp_path, tiny_model, "alone", method, 1).model_copy(update={"gpus": 1})
    processes = min(8, 1 << (torch.cuda.device_count().bit_length() - 1))
    together = config(tmp_path, tiny_model, "together", method, processes).model_copy(update={"gpus": processes})
    train(alone, tmp_path, {})
    # A single process joins a group only through its environment.
    train(together, tmp_path, local_members(1, Node(port=free_port()))[0].environ() if processes == 1 else {})
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(together)[name], tensor, rtol=10 * RELATIVE, atol=10 * ABSOLUTE)


def train(run: RunConfig, directory: Path, environ: dict[str, str]) -> None:
    path = directory / "run.json"
    path.write_text(run.model_dump_json(by_alias=True, exclude_none=True))
    words = [sys.executable, "-m", "trainyard_trainer", "train", "--config", str(path)]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ}
    done = subprocess.run(words, env=found, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
