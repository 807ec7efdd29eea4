"""What the processes of a group agree on, by gloo between real processes."""

import json
import signal
from pathlib import Path

import pytest

from tests.unit.trainer.group import work
from tests.unit.trainer.group.processes import run_group
from trainyard_crds.exitcodes import ExitCode

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_processes_get_the_same_sums_values_and_decisions(world_size: int) -> None:
    assert run_group(world_size, work.agree) == [0] * world_size


def test_the_first_process_goes_first(tmp_path: Path) -> None:
    assert run_group(2, work.take_turns, tmp_path) == [0, 0]


def test_the_first_process_of_each_pod_goes_before_the_others_of_it(tmp_path: Path) -> None:
    assert run_group(4, work.take_turns_by_pods, tmp_path, nodes=2) == [0] * 4


def test_every_process_hears_of_the_gpus_of_all_pods() -> None:
    assert run_group(4, work.sample_gpus, nodes=2) == [0] * 4


@pytest.mark.parametrize("world_size", [2, 4])
def test_gradients_are_summed_once_and_are_the_same_everywhere(tmp_path: Path, world_size: int) -> None:
    assert run_group(world_size, work.reduce, tmp_path) == [0] * world_size
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(world_size)]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("how", ["sum", "all_gather", "gradients"])
def test_who_waits_for_a_process_that_was_killed_ends_with_its_own_code(how: str) -> None:
    assert run_group(2, work.lose, how) == [ExitCode.PEER_LOST, -signal.SIGKILL]
