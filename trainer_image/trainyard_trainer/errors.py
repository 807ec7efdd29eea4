"""Errors of the trainer.

TrainerError            ends the run with an exit code, a message and advice
|- ConfigurationError   64  invalid run config
|- DataError            65  invalid dataset, or data that does not match the run directory
|  `- RowError              invalid row, with file, row, field and kind
|- NotFoundError        66  a model, dataset or checkpoint was not found
|- SourceError          69  a source is unreachable
|- StorageError         73  the run directory's volume is full, read-only or failing
|- StopRequested        75  SIGTERM was received; raised where the stop flag is polled
|- PeerLostError        76  another process of the group was lost
|- NotPermittedError    77  gated model or invalid credentials
|- GpuMemoryError       79  CUDA out of memory
|- SupersededError      80  a newer trainer owns the run directory
"""

from __future__ import annotations

from typing import ClassVar

from trainyard_crds.exitcodes import ExitCode


class TrainerError(Exception):
    """Ends the run: `message` is a sentence for the user, `advice` the remedy ("" if the message contains it)."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_ERROR

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class ConfigurationError(TrainerError):
    """The run config is invalid."""

    exit_code = ExitCode.BAD_CONFIGURATION


class DataError(TrainerError):
    """The dataset is invalid or does not match the run directory."""

    exit_code = ExitCode.BAD_DATA


class RowError(DataError):
    """A row is invalid; `kind` is a stable CamelCase name for counts, `field` is None if the whole row is invalid."""

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
    """A model or dataset source is unreachable; a retry may succeed."""

    exit_code = ExitCode.SOURCE_UNREACHABLE


class StorageError(TrainerError):
    """The run directory's volume is full, read-only or failing."""

    exit_code = ExitCode.STORAGE_FAILED


class StopRequested(TrainerError):  # noqa: N818 - not an error
    """SIGTERM was received: unwind to the engine, which saves and exits."""

    exit_code = ExitCode.INTERRUPTED


class PeerLostError(TrainerError):
    """Another process of the group exited or is unreachable."""

    exit_code = ExitCode.PEER_LOST


class NotPermittedError(TrainerError):
    """The source rejected the credentials."""

    exit_code = ExitCode.NOT_PERMITTED


class GpuMemoryError(TrainerError):
    """The GPU's memory is too small for this run."""

    exit_code = ExitCode.OUT_OF_GPU_MEMORY


class SupersededError(TrainerError):
    """A newer trainer owns the run directory."""

    exit_code = ExitCode.SUPERSEDED


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message as the end of a sentence: at most 300 characters and a full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0][:300].rstrip(" .:") if lines else type(error).__name__) + "."
