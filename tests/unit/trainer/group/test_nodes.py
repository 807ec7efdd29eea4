"""The real entry point in several pods, each a launcher on loopback: what any end of one of them costs."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.group.launching import wait_until
from tests.unit.trainer.toy import exported, metric_lines, run_config
from trainyard_crds.contract import TERMINATION_LOG_ENV
from trainyard_crds.report import Termination
from trainyard_trainer.group.interfaces import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
SECONDS = 180


@dataclass
class Run:
    """A run in two pods."""

    directory: Path
    blocks: dict[str, Any] = field(default_factory=dict)
    processes: int = 2

    def __post_init__(self) -> None:
        self.directory.mkdir()
        config = run_config(self.path, processes=self.processes, nodes=2, **self.blocks)
        (self.directory / "run.json").write_text(json.dumps(config.to_json()))
        self.pods: dict[int, subprocess.Popen[str]] = {}
        self.port = free_port()

    @property
    def path(self) -> Path:
        return self.directory / "run"

    def start(self, *indexes: int, **faults: str) -> None:
        """Start pods; `pod0="kill:loss:3"` strikes the first one."""
        for index in indexes:
            environ = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer_image", ".")),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "TOY_FAULT": faults.get(f"pod{index}", ""),
                "NNODES": "2",
                "NODE_RANK": str(index),
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": str(self.port),
                TERMINATION_LOG_ENV: str(self.log(index)),
            }
            words = [sys.executable, str(ROOT / "tests/unit/trainer/toy_command.py"), "train", "--config", "run.json"]
            self.log(index).unlink(missing_ok=True)
            with self.output(index).open("w") as output:
                self.pods[index] = subprocess.Popen(
                    words, env=environ, cwd=self.directory, stdout=output, stderr=subprocess.STDOUT, text=True
                )

    def log(self, index: int) -> Path:
        return self.directory / f"termination-{index}"

    def output(self, index: int) -> Path:
        return self.directory / f"output-{index}"

    def wait_for_others(self, index: int) -> None:
        """Wait until a pod says that it waits for the others."""
        wait_until(lambda: "WaitingForPods" in self.output(index).read_text(), SECONDS)

    def end(self, index: int) -> Termination | None:
        """A pod's last word, which agrees with its code; None where it was killed."""
        code = self.pods[index].wait(SECONDS)
        if code == -signal.SIGKILL:
            return None
        word = Termination.model_validate_json(self.log(index).read_bytes())
        assert word.exit_code == code, self.output(index).read_text()
        return word

    def codes(self, **faults: str) -> list[int]:
        """The codes of a start of both pods."""
        self.start(0, 1, **faults)
        return [-9 if word is None else word.exit_code for word in (self.end(0), self.end(1))]


def test_two_pods_are_interrupted_in_every_way_and_end_with_the_bits_of_one(tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    one.write_text(json.dumps(run_config(tmp_path / "one", processes=2).to_json()))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer_image", "."))}
    words = [sys.executable, str(ROOT / "tests/unit/trainer/toy_command.py"), "train", "--config", str(one)]
    subprocess.run(words, env={**environ, "CUDA_VISIBLE_DEVICES": ""}, check=True, timeout=SECONDS)

    run = Run(tmp_path / "two")
    assert run.codes(pod1="pod:loss:3") == [76, -9]
    assert run.codes(pod1="term:loss:9") == [75, 75]
    assert run.codes(pod1="pod:evaluate:1") == [76, -9]
    assert run.codes(pod0="pod:save_weights:1") == [-9, 76]
    assert run.codes(pod0="pod:export:1") == [-9, 76]
    assert run.codes() == [0, 0]
    assert exported(run.path) == exported(tmp_path / "one")
    assert metric_lines(run.path) == metric_lines(tmp_path / "one")
    assert len(list((run.path / "owner").iterdir())) == 6, "only the first pod claims the run directory"


def test_a_pod_that_is_started_again_after_the_end_says_so_again(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.start(1)
    run.wait_for_others(1)
    run.start(0)
    words = [run.end(0), run.end(1)]
    assert words[0] is not None
    assert words[0].exit_code == 0
    assert words[1] == words[0], "the result is the same for all"
    for index in (1, 0):
        run.start(index)
        assert run.end(index) == words[0]


def test_a_pod_that_comes_back_while_the_first_one_exports_waits_for_its_result(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    stop = tmp_path / "exporting"
    run.start(0, 1, pod0=f"wait:export:{stop}")
    wait_until(stop.exists, 120)
    run.pods[1].kill()
    run.end(1)
    run.start(1)
    run.wait_for_others(1)
    assert run.pods[1].poll() is None
    stop.unlink()
    words = [run.end(0), run.end(1)]
    assert words[0] == words[1]
    assert words[0] is not None
    assert words[0].exit_code == 0


def test_a_mistake_is_told_by_the_first_pod(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", {"gpus": 1})
    assert run.codes() == [64, 64]
