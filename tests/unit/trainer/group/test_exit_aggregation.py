"""Aggregation of the exits of a group's processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_crds.exitcodes import EXIT_CODES, ExitCode
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.group.exit_aggregation import ProcessExit, aggregate_exits

KILLED = -9


def termination(code: int, text: str = "") -> Termination:
    outcome = {0: Outcome.FINISHED, 75: Outcome.INTERRUPTED}.get(code, Outcome.FAILED)
    return Termination(outcome=outcome, exit_code=code, reason=EXIT_CODES[ExitCode(code)].reason, message=text, step=7)


def process_exit(rank: int, code: int) -> ProcessExit:
    return ProcessExit(rank=rank, code=code, termination=None if code < 0 else termination(code, f"of {rank}"))


@pytest.mark.parametrize(
    ("exits", "code"),
    [
        ([(1, 0), (0, 0)], 0),
        ([(1, 75), (0, 75)], 75),
        ([(1, 65), (0, 76)], 65),
        ([(0, 76), (1, 65)], 65),  # rank 0 detected the loss before rank 1 had exited
        ([(1, KILLED), (0, 76)], 76),
        ([(0, KILLED), (1, 76)], 76),
        ([(1, 75), (0, 76)], 75),  # stopped while the model was loaded
        ([(1, 75), (0, 73)], 73),  # the checkpoint could not be written
        ([(1, 75), (0, KILLED)], 76),  # killed while writing the checkpoint
        ([(1, KILLED), (0, 0)], 0),  # the run had finished
        ([(0, 76), (1, 76)], 76),
        ([(2, 79), (1, 70), (0, 76)], 79),
    ],
)
def test_the_first_failure_decides(exits: list[tuple[int, int]], code: int) -> None:
    assert aggregate_exits([process_exit(*one) for one in exits], 2).exit_code == code


def test_message_is_of_the_failed_process_and_metrics_are_of_rank_0() -> None:
    found = aggregate_exits([process_exit(1, 65), process_exit(0, 76)], 2)
    assert (found.message, found.reason, found.step) == ("of 1", "BadData", 7)


def test_message_names_the_killed_process() -> None:
    found = aggregate_exits([ProcessExit(rank=1, code=KILLED, termination=None), process_exit(0, 76)], 2)
    assert "Process 1 of the group of 2 was killed by SIGKILL" in found.message
    assert (found.reason, found.step) == ("PeerLost", 7)
    assert "resources.memory" in found.advice


@given(
    st.permutations([0, 1, 2, 3]), st.lists(st.sampled_from([0, 64, 73, 75, 76, 80, KILLED]), min_size=4, max_size=4)
)
def test_group_finishes_exactly_if_rank_0_finished(order: list[int], codes: list[int]) -> None:
    found = aggregate_exits([process_exit(rank, codes[rank]) for rank in order], 4)
    assert (found.exit_code == 0) == (codes[0] == 0)
    assert found.exit_code in {*codes, ExitCode.PEER_LOST}
    if found.exit_code == ExitCode.INTERRUPTED:
        assert set(codes) <= {0, 75, 76}
