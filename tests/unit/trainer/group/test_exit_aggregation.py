"""What a group ended with, from the ends of its processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_crds.exitcodes import EXIT_CODES, ExitCode
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.group.exit_aggregation import ProcessExit, aggregate_exits

KILLED = -9


def word(code: int, text: str = "") -> Termination:
    outcome = {0: Outcome.FINISHED, 75: Outcome.INTERRUPTED}.get(code, Outcome.FAILED)
    return Termination(outcome=outcome, exit_code=code, reason=EXIT_CODES[ExitCode(code)].reason, message=text, step=7)


def end(rank: int, code: int) -> ProcessExit:
    return ProcessExit(rank=rank, code=code, message=None if code < 0 else word(code, f"of {rank}"))


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ([(1, 0), (0, 0)], 0),
        ([(1, 75), (0, 75)], 75),
        ([(1, 65), (0, 76)], 65),
        ([(0, 76), (1, 65)], 65),  # the other one noticed before it was gone
        ([(1, KILLED), (0, 76)], 76),
        ([(0, KILLED), (1, 76)], 76),
        ([(1, 75), (0, 76)], 75),  # asked to stop while the model was loaded
        ([(1, 75), (0, 73)], 73),  # the checkpoint could not be written
        ([(1, 75), (0, KILLED)], 76),  # nor was it here
        ([(1, KILLED), (0, 0)], 0),  # the run had finished
        ([(0, 76), (1, 76)], 76),
        ([(2, 79), (1, 70), (0, 76)], 79),
    ],
)
def test_the_first_failure_decides(ends: list[tuple[int, int]], code: int) -> None:
    assert aggregate_exits([end(*one) for one in ends], 2).exit_code == code


def test_the_words_are_of_who_failed_and_the_figures_of_the_first_process() -> None:
    found = aggregate_exits([end(1, 65), end(0, 76)], 2)
    assert (found.message, found.reason, found.step) == ("of 1", "BadData", 7)


def test_who_was_killed_is_named() -> None:
    found = aggregate_exits([ProcessExit(rank=1, code=KILLED, message=None), end(0, 76)], 2)
    assert "Process 1 of the group of 2 was ended by SIGKILL" in found.message
    assert (found.reason, found.step) == ("PeerLost", 7)
    assert "resources.memory" in found.advice


@given(
    st.permutations([0, 1, 2, 3]), st.lists(st.sampled_from([0, 64, 73, 75, 76, 80, KILLED]), min_size=4, max_size=4)
)
def test_a_group_finishes_exactly_when_its_first_process_did(order: list[int], codes: list[int]) -> None:
    found = aggregate_exits([end(rank, codes[rank]) for rank in order], 4)
    assert (found.exit_code == 0) == (codes[0] == 0)
    assert found.exit_code in {*codes, ExitCode.PEER_LOST}
    if found.exit_code == ExitCode.INTERRUPTED:
        assert set(codes) <= {0, 75, 76}
