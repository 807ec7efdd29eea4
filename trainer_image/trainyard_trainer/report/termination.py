"""Termination message of the container, and result.json of a finished run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from trainyard_crds.constants import TERMINATION_LOG, TERMINATION_LOG_ENV
from trainyard_crds.exitcodes import EXIT_CODES
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.errors import StopRequested, TrainerError

RESULT_FILE = "result.json"
_MESSAGE_LIMIT = 1024
_ADVICE_LIMIT = 512


def read_result(run_directory: Path) -> Termination | None:
    """Return the result of a finished run; None if the run has not finished."""
    try:
        result = Termination.model_validate_json((run_directory / RESULT_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    return result if result.outcome is Outcome.FINISHED else None


def termination_of(error: TrainerError) -> Termination:
    """Return the termination of a run that failed or was interrupted."""
    return Termination(
        outcome=Outcome.INTERRUPTED if isinstance(error, StopRequested) else Outcome.FAILED,
        exit_code=int(error.exit_code),
        reason=EXIT_CODES[error.exit_code].reason,
        message=_cut(error.message, _MESSAGE_LIMIT),
        advice=_cut(error.advice, _ADVICE_LIMIT),
    )


def termination_log(environ: Mapping[str, str]) -> Path | None:
    """Return the file from which the kubelet reads the termination message; None outside a pod."""
    if configured := environ.get(TERMINATION_LOG_ENV):
        return Path(configured)
    path = Path(TERMINATION_LOG)
    return path if path.exists() and os.access(path, os.W_OK) else None


def write_termination(termination: Termination, environ: Mapping[str, str]) -> None:
    """Write the termination message to the file that the kubelet reads."""
    path = termination_log(environ)
    if path is not None:
        try:  # in place: the file is a bind mount of the kubelet
            path.write_text(termination.to_message(), encoding="utf-8")
        except OSError as error:
            sys.stderr.write(f"The termination message cannot be written to {path}: {error.strerror}.\n")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
