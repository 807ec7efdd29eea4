"""Collective operations over gloo between real processes."""

import json
import signal
from pathlib import Path

import pytest

from tests.unit.trainer.group import work
from tests.unit.trainer.group.processes import run_group
from trainyard_crds.exitcodes import ExitCode

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("world_size", [2, 4])
def test_collectives_return_the_same_values_in_all_processes(world_size: int) -> None:
    assert run_group(world_size, work.check_collectives) == [0] * world_size


def test_main_process_runs_first(tmp_path: Path) -> None:
    assert run_group(2, work.take_turns, tmp_path) == [0, 0]


def test_local_main_process_runs_before_the_others_of_its_pod(tmp_path: Path) -> None:
    assert run_group(4, work.take_turns_by_pods, tmp_path, nodes=2) == [0] * 4


def test_every_process_samples_the_gpus_of_all_pods() -> None:
    assert run_group(4, work.sample_gpus, nodes=2) == [0] * 4


@pytest.mark.parametrize("world_size", [2, 4])
def test_gradients_are_summed_once_and_equal_in_all_processes(tmp_path: Path, world_size: int) -> None:
    assert run_group(world_size, work.reduce_gradients, tmp_path) == [0] * world_size
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(world_size)]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("how", ["sum", "all_gather", "gradients"])
def test_killed_process_raises_peer_lost_in_the_others(how: str) -> None:
    assert run_group(2, work.lose_peer, how) == [ExitCode.PEER_LOST, -signal.SIGKILL]
