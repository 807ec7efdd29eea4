"""Exit codes of the trainer: meaning, reason in the status, and action of the Job.

Codes follow sysexits.h where one fits. An interrupted run must not exit 0: the Job controller accepts exit 0 of an
evicted pod and would count an unfinished run as Complete.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class ExitCode(IntEnum):
    """Exit code of the trainer process."""

    FINISHED = 0
    BAD_CONFIGURATION = 64
    BAD_DATA = 65
    NOT_FOUND = 66
    SOURCE_UNREACHABLE = 69
    INTERNAL_ERROR = 70
    STORAGE_FAILED = 73
    INTERRUPTED = 75
    PEER_LOST = 76
    NOT_PERMITTED = 77
    OUT_OF_GPU_MEMORY = 79
    SUPERSEDED = 80


class OnExit(StrEnum):
    """Action of the Job's podFailurePolicy."""

    COMPLETE = "Complete"
    IGNORE = "Ignore"  # restart, not counted
    FAIL = "FailJob"  # a retry cannot succeed
    COUNT = "Count"  # counted against retry.limit


class Meaning(NamedTuple):
    """Meaning of one exit code."""

    reason: str
    action: OnExit
    description: str


EXIT_CODES: dict[ExitCode, Meaning] = {
    ExitCode.FINISHED: Meaning("TrainingFinished", OnExit.COMPLETE, "Training finished."),
    ExitCode.BAD_CONFIGURATION: Meaning("BadConfiguration", OnExit.FAIL, "The configuration cannot work."),
    ExitCode.BAD_DATA: Meaning("BadData", OnExit.FAIL, "The dataset or the run directory's data does not fit."),
    ExitCode.NOT_FOUND: Meaning("NotFound", OnExit.FAIL, "A model, dataset or checkpoint was not found."),
    ExitCode.SOURCE_UNREACHABLE: Meaning(
        "SourceUnreachable", OnExit.COUNT, "A model or dataset source did not answer."
    ),
    ExitCode.INTERNAL_ERROR: Meaning("InternalError", OnExit.COUNT, "The trainer failed unexpectedly."),
    ExitCode.STORAGE_FAILED: Meaning(
        "StorageFailed",
        OnExit.FAIL,
        "The checkpoint volume is full or read-only.",
    ),
    ExitCode.INTERRUPTED: Meaning("Interrupted", OnExit.IGNORE, "Saved and stopped after SIGTERM; it can resume."),
    ExitCode.PEER_LOST: Meaning("PeerLost", OnExit.IGNORE, "Another process of the group was lost."),
    ExitCode.NOT_PERMITTED: Meaning("NotPermitted", OnExit.FAIL, "The credentials do not permit the download."),
    ExitCode.OUT_OF_GPU_MEMORY: Meaning("OutOfGPUMemory", OnExit.FAIL, "The GPU's memory is too small for this run."),
    ExitCode.SUPERSEDED: Meaning("Superseded", OnExit.IGNORE, "A newer trainer owns the run directory."),
}


def codes_for(action: OnExit) -> list[int]:
    """Return the exit codes with an action, ascending, as podFailurePolicy rules require."""
    return sorted(int(code) for code, meaning in EXIT_CODES.items() if meaning.action is action)


def reason_for(code: int) -> str:
    """Return the reason of any exit code; `Signal<N>` for a signal."""
    if code in ExitCode.__members__.values():
        return EXIT_CODES[ExitCode(code)].reason
    return f"Signal{code - 128}" if code > 128 else "UnknownExitCode"
