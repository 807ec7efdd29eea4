"""Maps third-party exceptions to TrainerError."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from trainyard_trainer.checkpoint.files import to_storage_error
from trainyard_trainer.errors import GpuMemoryError, PeerLostError, TrainerError

_MAX_TEXT_LENGTH = 300
_OUT_OF_MEMORY_MESSAGES = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_GLOO_PEER_LOSS_MESSAGES = ("gloo/", "Gloo ", "closed by peer", "Connection reset")


def to_trainer_error(error: Exception, run_directory: Path, memory_advice: str) -> TrainerError:
    """Return the TrainerError for an exception; an unexpected one becomes a plain TrainerError (exit code 70)."""
    if isinstance(error, TrainerError):
        return error
    if _is_out_of_gpu_memory(error):
        return GpuMemoryError("The GPU's memory is too small for this run.", memory_advice)
    if is_peer_loss(error):
        return peer_lost_error(error)
    return to_storage_error(error, run_directory) or internal_error(error)


def is_peer_loss(error: Exception) -> bool:
    """Return whether a process of the group is unreachable; gloo reports it only in the text of a RuntimeError."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available():
        return False
    is_of_gloo = isinstance(error, RuntimeError) and _contains_any(str(error), _GLOO_PEER_LOSS_MESSAGES)
    return is_of_gloo or isinstance(error, torch.distributed.DistError)


def peer_lost_error(error: Exception) -> PeerLostError:
    """Return the PeerLostError for an error of torch.distributed."""
    text = " ".join(str(error).split())[:_MAX_TEXT_LENGTH]
    return PeerLostError(
        f"Another process of the group was lost: {text}", "The next start resumes from the last checkpoint."
    )


def internal_error(error: Exception) -> TrainerError:
    """Return the TrainerError for an unexpected exception."""
    text = " ".join(str(error).split())[:_MAX_TEXT_LENGTH]
    return TrainerError(
        f"The trainer failed unexpectedly: {type(error).__name__}: {text}", "The log has the traceback."
    )


def traceback_of(error: Exception) -> str:
    """Return the traceback as text."""
    return "".join(traceback.format_exception(error))


def _is_out_of_gpu_memory(error: Exception) -> bool:
    """Return whether torch, the CUDA driver or a CUDA library ran out of memory; the last two report it as text."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    is_of_cuda = isinstance(error, RuntimeError) and _contains_any(str(error), _OUT_OF_MEMORY_MESSAGES)
    return is_of_cuda or isinstance(error, torch.OutOfMemoryError)


def _contains_any(text: str, parts: Sequence[str]) -> bool:
    return any(part in text for part in parts)
