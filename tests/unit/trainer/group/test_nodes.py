"""The real entry point in several pods, each a launcher on loopback: what any end of one of them costs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.timeouts import PATIENCE, wait_until
from tests.unit.trainer.group.launching import kept_port
from tests.unit.trainer.toy import exported, metric_lines, run_config
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Termination

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


@dataclass
class Run:
    """A run in two pods."""

    directory: Path
    port: int
    pods: dict[int, subprocess.Popen[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.configure()

    def configure(self, **blocks: Any) -> None:
        """Write the run config, of two processes in each pod."""
        config = run_config(self.path, processes=2, nodes=2, **blocks)
        (self.directory / "run.json").write_text(json.dumps(config.to_json()))

    def clear(self) -> None:
        """Leave no pod of it, where its test has not seen the end of all."""
        for pod in self.pods.values():
            pod.kill()
            pod.wait()

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
                "TOY_TRAINED": str(self.trained(index)),
                "NNODES": "2",
                "NODE_RANK": str(index),
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": str(self.port),
                TERMINATION_LOG_ENV: str(self.log(index)),
            }
            words = [sys.executable, str(ROOT / "tests/unit/trainer/toy_command.py"), "train", "--config", "run.json"]
            for left in (self.log(index), self.trained(index)):
                left.unlink(missing_ok=True)
            with self.output(index).open("w") as output:
                self.pods[index] = subprocess.Popen(
                    words, env=environ, cwd=self.directory, stdout=output, stderr=subprocess.STDOUT, text=True
                )

    def log(self, index: int) -> Path:
        return self.directory / f"termination-{index}"

    def trained(self, index: int) -> Path:
        """A file that is there once a pod has told the first one that its processes have done their part."""
        return self.directory / f"trained-{index}"

    def output(self, index: int) -> Path:
        return self.directory / f"output-{index}"

    def wait_for_others(self, index: int) -> None:
        """Wait until a pod says that it waits for the others."""
        wait_until(lambda: "WaitingForPods" in self.output(index).read_text())

    def end(self, index: int) -> Termination | None:
        """A pod's last word, which agrees with its code; None where it was killed."""
        code = self.pods[index].wait(PATIENCE)
        if code == -signal.SIGKILL:
            return None
        word = Termination.model_validate_json(self.log(index).read_bytes())
        assert word.exit_code == code, self.output(index).read_text()
        return word

    def codes(self, **faults: str) -> list[int]:
        """The codes of a start of both pods."""
        self.start(0, 1, **faults)
        return [-9 if word is None else word.exit_code for word in (self.end(0), self.end(1))]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with kept_port() as port:
        run = Run(tmp_path / "run", port)
        yield run
        run.clear()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one pod that nothing interrupted."""
    directory = tmp_path_factory.mktemp("one")
    config = directory / "one.json"
    config.write_text(json.dumps(run_config(directory / "run", processes=2).to_json()))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer_image", "."))}
    words = [sys.executable, str(ROOT / "tests/unit/trainer/toy_command.py"), "train", "--config", str(config)]
    subprocess.run(words, env={**environ, "CUDA_VISIBLE_DEVICES": ""}, check=True, timeout=PATIENCE)
    return directory / "run"


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(
            [("pod1", "pod:loss:3", 76, -9), ("pod1", "term:loss:9", 75, 75), ("pod1", "pod:evaluate:1", 76, -9)],
            id="the other one",
        ),
        pytest.param([("pod0", "pod:save_weights:1", -9, 76), ("pod0", "pod:export:1", -9, 76)], id="the first one"),
    ],
)
def test_two_pods_one_of_which_ends_in_every_way_end_with_the_bits_of_one(
    run: Run, straight: Path, ends: list[tuple[str, str, int, int]]
) -> None:
    for pod, fault, *codes in ends:
        assert run.codes(**{pod: fault}) == codes
    assert run.codes() == [0, 0]
    assert exported(run.path) == exported(straight)
    assert metric_lines(run.path) == metric_lines(straight)
    assert len(list((run.path / "owner").iterdir())) == len(ends) + 1, "only the first pod claims the run directory"


def test_a_pod_that_is_started_again_after_the_end_says_so_again(run: Run) -> None:
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


def test_a_pod_that_comes_back_while_the_first_one_exports_waits_for_its_result(tmp_path: Path, run: Run) -> None:
    stop = tmp_path / "exporting"
    run.start(0, 1, pod0=f"wait:export:{stop}")
    wait_until(lambda: stop.exists() and run.trained(1).exists())
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


def test_a_mistake_is_told_by_the_first_pod(run: Run) -> None:
    run.configure(gpus=1)
    assert run.codes() == [64, 64]
