"""Errors of the trainer.

TrainerError            ends the run with an exit code, a sentence and advice
|- ConfigurationError   64  the run config cannot work
|- DataError            65  the dataset, or the run directory's data, does not fit
|  `- RowError              one row of it; carries file, row, field and kind
|- NotFoundError        66  a model, dataset or checkpoint was not found
|- SourceError          69  a source did not answer
|- StorageError         73  the run directory's volume is full or read-only
|- StopRequested        75  SIGTERM arrived; whatever was polled it unwinds with this
|- PeerLostError        76  another process of the group was lost
|- NotPermittedError    77  a gated model, wrong credentials
|- GpuMemoryError       79  CUDA out of memory
|- SupersededError      80  a newer trainer owns the run directory
"""

from __future__ import annotations

from typing import ClassVar

from trainyard_crds.exitcodes import ExitCode


class TrainerError(Exception):
    """Ends the run: `message` is a sentence for the user, `advice` says what to change ("" where the message does)."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_ERROR

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class ConfigurationError(TrainerError):
    """The run config cannot work."""

    exit_code = ExitCode.BAD_CONFIGURATION


class DataError(TrainerError):
    """The dataset, or the data a run directory was made with, does not fit."""

    exit_code = ExitCode.BAD_DATA


class RowError(DataError):
    """One row is wrong; `kind` is a stable CamelCase name to count by, `field` is None where the whole row is meant."""

    def __init__(self, problem: str, remedy: str, *, file: str, row: int, kind: str, field: str | None = None) -> None:
        super().__init__(f"{file}, row {row}: {problem}.", remedy)
        self.problem = problem
        self.file = file
        self.row = row
        self.kind = kind
        self.field = field


class NotFoundError(TrainerError):
    """A model, dataset or checkpoint was not found."""

    exit_code = ExitCode.NOT_FOUND


class SourceError(TrainerError):
    """A model or dataset source did not answer; trying again may help."""

    exit_code = ExitCode.SOURCE_UNREACHABLE


class StorageError(TrainerError):
    """The run directory's volume is full, read-only or broken."""

    exit_code = ExitCode.STORAGE_FAILED


class StopRequested(TrainerError):  # noqa: N818 - not an error of anybody
    """SIGTERM arrived: unwind to the engine, which saves and exits."""

    exit_code = ExitCode.INTERRUPTED


class PeerLostError(TrainerError):
    """Another process of the group ended, or could not be reached any more."""

    exit_code = ExitCode.PEER_LOST


class NotPermittedError(TrainerError):
    """The source refused the credentials."""

    exit_code = ExitCode.NOT_PERMITTED


class GpuMemoryError(TrainerError):
    """The GPU's memory is too small for this run."""

    exit_code = ExitCode.OUT_OF_GPU_MEMORY


class SupersededError(TrainerError):
    """A newer trainer owns the run directory."""

    exit_code = ExitCode.SUPERSEDED
