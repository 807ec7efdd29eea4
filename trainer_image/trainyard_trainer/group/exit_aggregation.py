"""Aggregate the exits of a group's processes into one termination; pure functions."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.report import Termination
from trainyard_trainer.errors import PeerLostError
from trainyard_trainer.report.termination import termination_of

_NOT_A_CAUSE = (ExitCode.FINISHED, ExitCode.INTERRUPTED, ExitCode.PEER_LOST)
"""Exit codes of processes that did not fail themselves."""


@dataclass(frozen=True, kw_only=True)
class ProcessExit:
    """Exit of one process of a group."""

    rank: int
    code: int
    """Exit code, negative for a signal."""
    termination: Termination | None
    """Termination message of the process; None if it left none."""


def is_failure(code: int) -> bool:
    """Return whether an exit code means that the other processes cannot continue."""
    return code not in (ExitCode.FINISHED, ExitCode.INTERRUPTED)


def aggregate_exits(exits: Sequence[ProcessExit], world_size: int, lost: str | None = None) -> Termination:
    """Return the termination of this pod's part of the group.

    The process that failed first is the cause; a lost peer that follows from its exit is not. A process killed by a
    signal counts as a lost peer. Metrics and checkpoints are those of rank 0.

    Args:
        exits: In the order in which the processes ended.
        world_size: Processes of the group, in all pods.
        lost: Why the group is broken, if another pod failed or was lost; then it is the cause of lost peers.
    """
    of_rank_0 = next((one.termination for one in exits if one.rank == 0), None)
    if of_rank_0 is not None and of_rank_0.exit_code == ExitCode.FINISHED:
        return of_rank_0
    cause = _cause(exits)
    if lost is not None and cause.code in (ExitCode.INTERRUPTED, ExitCode.PEER_LOST):
        termination = termination_of(lost_pod_error(lost))
    elif cause.termination is None:
        termination = termination_of(_missing_termination_error(cause, world_size))
    else:
        termination = cause.termination
    is_of_rank_0 = cause.rank == 0 and termination is cause.termination
    if is_of_rank_0 or of_rank_0 is None:
        return termination
    of_cause = ("outcome", "exit_code", "reason", "message", "advice")
    return of_rank_0.model_copy(update={name: getattr(termination, name) for name in of_cause})


def lost_pod_error(why: str) -> PeerLostError:
    """Return the error of a pod whose group is broken.

    Args:
        why: The reason, a sentence.
    """
    return PeerLostError(why, "The next start resumes from the last checkpoint.")


def _cause(exits: Sequence[ProcessExit]) -> ProcessExit:
    failed = [one for one in exits if one.code not in _NOT_A_CAUSE]
    # Of the interrupted processes, rank 0 has the termination with the saved checkpoint.
    interrupted = sorted((one for one in exits if one.code == ExitCode.INTERRUPTED), key=lambda one: one.rank)
    lost = [one for one in exits if one.code == ExitCode.PEER_LOST]
    return next(iter([*failed, *interrupted, *lost, *exits]))


def _missing_termination_error(one: ProcessExit, world_size: int) -> PeerLostError:
    if one.code < 0:
        how = f"was killed by {_signal_name(-one.code)}"
    else:
        how = f"exited with code {one.code} without a termination message"
    return PeerLostError(
        f"Process {one.rank} of the group of {world_size} {how}; the others stopped.",
        "The next start resumes from the last checkpoint. If it happens again, raise resources.memory.",
    )


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
