"""The trainer's command line in several pods, each a launcher on loopback, with faults in one of them."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.timeouts import TIMEOUT, wait_until
from tests.unit.trainer import toy_command
from tests.unit.trainer.fork_server import Program, start_program
from tests.unit.trainer.group.launching import reserved_port
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
    pods: dict[int, ForkServerProcess] = field(default_factory=dict)
    program: Program = toy_command.run

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.configure()

    def configure(self, **blocks: Any) -> None:
        """Write the run config, of two processes in each pod."""
        config = run_config(self.path, processes=2, nodes=2, **blocks)
        (self.directory / "run.json").write_text(json.dumps(config.to_json()))

    def clear(self) -> None:
        """Kill the remaining pods."""
        for pod in self.pods.values():
            pod.kill()
            pod.join()

    @property
    def path(self) -> Path:
        return self.directory / "run"

    def start(self, *indexes: int, **faults: str) -> None:
        """Start pods; `pod0="kill:loss:3"` injects a fault into pod 0."""
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
            for left in (self.log(index), self.trained(index), self.output(index)):
                left.unlink(missing_ok=True)
            command, output = ("train", "--config", "run.json"), self.output(index)
            self.pods[index] = start_program(
                self.program, *command, environ=environ, directory=self.directory, output=output
            )

    def log(self, index: int) -> Path:
        return self.directory / f"termination-{index}"

    def trained(self, index: int) -> Path:
        """Return the file that a pod creates once it has announced that its processes have finished training."""
        return self.directory / f"trained-{index}"

    def output(self, index: int) -> Path:
        return self.directory / f"output-{index}"

    def wait_for_others(self, index: int) -> None:
        """Wait until a pod logs that it waits for the others."""
        wait_until(lambda: self.output(index).exists() and "WaitingForPods" in self.output(index).read_text())

    def end(self, index: int) -> Termination | None:
        """Wait for a pod and return its termination; None if it was killed."""
        self.pods[index].join(TIMEOUT)
        code = self.pods[index].exitcode
        if code == -signal.SIGKILL:
            return None
        termination = Termination.model_validate_json(self.log(index).read_bytes())
        assert termination.exit_code == code, self.output(index).read_text()
        return termination

    def codes(self, **faults: str) -> list[int]:
        """Start both pods and return their exit codes."""
        self.start(0, 1, **faults)
        return [-9 if one is None else one.exit_code for one in (self.end(0), self.end(1))]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with reserved_port() as port:
        run = Run(tmp_path / "run", port)
        yield run
        run.clear()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in one pod."""
    directory = tmp_path_factory.mktemp("one")
    config = directory / "one.json"
    config.write_text(json.dumps(run_config(directory / "run", processes=2).to_json()))
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command, output = ("train", "--config", str(config)), directory / "output"
    process = start_program(toy_command.run, *command, environ=environ, directory=directory, output=output)
    process.join(TIMEOUT)
    assert process.exitcode == 0, output.read_text()
    return directory / "run"


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(
            [("pod1", "pod:loss:3", 76, -9), ("pod1", "term:loss:9", 75, 75), ("pod1", "pod:evaluate:1", 76, -9)],
            id="pod 1",
        ),
        pytest.param([("pod0", "pod:save_weights:1", -9, 76), ("pod0", "pod:export:1", -9, 76)], id="pod 0"),
    ],
)
def test_two_pods_with_faults_end_with_the_bits_of_one(
    run: Run, uninterrupted: Path, ends: list[tuple[str, str, int, int]]
) -> None:
    for pod, fault, *codes in ends:
        assert run.codes(**{pod: fault}) == codes
    assert run.codes() == [0, 0]
    assert exported(run.path) == exported(uninterrupted)
    assert metric_lines(run.path) == metric_lines(uninterrupted)
    assert len(list((run.path / "owner").iterdir())) == len(ends) + 1, "only the first pod claims the run directory"


def test_pod_restarted_after_the_end_returns_the_same_result(run: Run) -> None:
    run.start(1)
    run.wait_for_others(1)
    run.start(0)
    terminations = [run.end(0), run.end(1)]
    assert terminations[0] is not None
    assert terminations[0].exit_code == 0
    assert terminations[1] == terminations[0], "the result is the same for all"
    for index in (1, 0):
        run.start(index)
        assert run.end(index) == terminations[0]


def test_pod_restarted_during_the_export_waits_for_the_result(tmp_path: Path, run: Run) -> None:
    stop = tmp_path / "exporting"
    run.start(0, 1, pod0=f"wait:export:{stop}")
    wait_until(lambda: stop.exists() and run.trained(1).exists())
    run.pods[1].kill()
    run.end(1)
    run.start(1)
    run.wait_for_others(1)
    assert run.pods[1].exitcode is None
    stop.unlink()
    terminations = [run.end(0), run.end(1)]
    assert terminations[0] == terminations[1]
    assert terminations[0] is not None
    assert terminations[0].exit_code == 0


def test_configuration_error_is_reported_by_all_pods(run: Run) -> None:
    run.program = toy_command.run_fresh
    run.configure(gpus=1)
    assert run.codes() == [64, 64]
