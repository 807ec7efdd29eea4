"""How a group ended, from how its processes did; pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.report import Termination
from trainyard_trainer.errors import PeerLostError
from trainyard_trainer.report.termination import termination_of

_CONSEQUENCES = (ExitCode.FINISHED, ExitCode.INTERRUPTED, ExitCode.PEER_LOST)
"""What a process ends with when nothing was wrong with itself."""


@dataclass(frozen=True, kw_only=True)
class ProcessExit:
    """How one process of a group ended."""

    rank: int
    code: int
    """Exit code, negative for a signal."""
    message: Termination | None
    """Its last word; None where it had none."""


def is_failure(code: int) -> bool:
    """Whether the others cannot go on: it did neither finish nor stop when it was asked to."""
    return code not in (ExitCode.FINISHED, ExitCode.INTERRUPTED)


def aggregate_exits(ends: Sequence[ProcessExit], world_size: int, lost: str | None = None) -> Termination:
    """The end of the group, in one pod.

    The process that failed first decides; a loss that follows from its end does not count. One that was ended by a
    signal did not fail: its group lost it. The metrics and checkpoints are those that the first process told of.

    Args:
        ends: In the order in which the processes ended.
        world_size: Processes of the group, in all pods.
        lost: Why it is broken, where another pod is; whoever ended for that reason was not at fault.
    """
    told = next((end.message for end in ends if end.rank == 0), None)
    if told is not None and told.exit_code == ExitCode.FINISHED:
        return told
    cause = _cause(ends)
    if lost is not None and cause.code in (ExitCode.INTERRUPTED, ExitCode.PEER_LOST):
        word = termination_of(lost_pod(lost))
    else:
        word = cause.message if cause.message is not None else termination_of(_without_a_word(cause, world_size))
        if cause.rank == 0:
            return word
    if told is None:
        return word
    of_cause = ("outcome", "exit_code", "reason", "message", "advice")
    return told.model_copy(update={name: getattr(word, name) for name in of_cause})


def lost_pod(why: str) -> PeerLostError:
    """The error of a pod whose group is broken.

    Args:
        why: In a sentence.
    """
    return PeerLostError(why, "The next start goes on from the last checkpoint.")


def _cause(ends: Sequence[ProcessExit]) -> ProcessExit:
    failed = [end for end in ends if end.code not in _CONSEQUENCES]
    stopped = [end for end in ends if end.code == ExitCode.INTERRUPTED]
    # Of those that stopped, the first process knows what was saved.
    lost = [end for end in ends if end.code == ExitCode.PEER_LOST]
    return next(iter([*failed, *sorted(stopped, key=lambda end: end.rank), *lost, *ends]))


def _without_a_word(end: ProcessExit, world_size: int) -> PeerLostError:
    how = f"was ended by {_signal_name(-end.code)}" if end.code < 0 else f"ended with code {end.code} without a word"
    return PeerLostError(
        f"Process {end.rank} of the group of {world_size} {how}; the others stopped.",
        "The next start goes on from the last checkpoint. Should it happen again, raise resources.memory.",
    )


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
