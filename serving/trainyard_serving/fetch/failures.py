"""Errors of a fetch, as the operator and the proxy report them. Pure."""

from __future__ import annotations

from trainyard_crds.serving import FetchFailure
from trainyard_serving.adapter_files import Missing
from trainyard_trainer.errors import (
    ConfigurationError,
    DataError,
    NotFoundError,
    NotPermittedError,
    SourceError,
    StorageError,
    TrainerError,
)

_TRANSIENT = (SourceError, StorageError)
"""What the source or the disk caused may pass."""
_REASONS: dict[type[TrainerError], str] = {
    ConfigurationError: "InvalidSource",
    DataError: "SourceChanged",
    NotFoundError: "SourceNotFound",
    NotPermittedError: "SourceNotPermitted",
    SourceError: "SourceUnreachable",
    StorageError: "StorageFailed",
}


class UnfitError(NotFoundError):
    """The source has no adapter that can be served.

    Attributes:
        reason: CamelCase reason.
    """

    def __init__(self, missing: Missing) -> None:
        super().__init__(missing.message)
        self.reason = missing.reason


def failure_of(error: TrainerError) -> FetchFailure:
    """Return an error as a failure; it is final unless another try can succeed."""
    reason = error.reason if isinstance(error, UnfitError) else _REASONS.get(type(error), "FetchFailed")
    text = f"{error.message} {error.advice}".strip()
    return FetchFailure(reason=reason, message=text, final=not isinstance(error, _TRANSIENT))
