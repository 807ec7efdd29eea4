"""Foreign errors in our words."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from trainyard_trainer.checkpoint.files import to_storage_error
from trainyard_trainer.errors import GpuMemoryError, PeerLostError, TrainerError

_LONGEST_TEXT = 300
_NO_MEMORY_LEFT = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_LOST_BY_GLOO = ("gloo/", "Gloo ", "closed by peer", "Connection reset")


def to_trainer_error(error: Exception, run_directory: Path, memory_advice: str) -> TrainerError:
    """Our error for any error that ended a run; `TrainerError` itself (exit code 70) for those nobody foresaw."""
    if isinstance(error, TrainerError):
        return error
    if _is_out_of_gpu_memory(error):
        return GpuMemoryError("The GPU's memory is too small for this run.", memory_advice)
    if is_peer_loss(error):
        return peer_lost_error(error)
    return to_storage_error(error, run_directory) or internal_error(error)


def is_peer_loss(error: Exception) -> bool:
    """Whether a process of the group could not be reached; gloo says so in the text of a RuntimeError only."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available():
        return False
    is_of_gloo = isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST_BY_GLOO)
    return is_of_gloo or isinstance(error, torch.distributed.DistError)


def peer_lost_error(error: Exception) -> PeerLostError:
    """Our error for one of the library that joins the processes."""
    text = " ".join(str(error).split())[:_LONGEST_TEXT]
    return PeerLostError(
        f"Another process of the group was lost: {text}", "The next start goes on from the last checkpoint."
    )


def internal_error(error: Exception) -> TrainerError:
    """The error of a run that ended for a reason nobody foresaw."""
    text = " ".join(str(error).split())[:_LONGEST_TEXT]
    return TrainerError(
        f"The trainer failed unexpectedly: {type(error).__name__}: {text}", "The log has the traceback."
    )


def traceback_of(error: Exception) -> str:
    """The traceback as text."""
    return "".join(traceback.format_exception(error))


def _is_out_of_gpu_memory(error: Exception) -> bool:
    """Whether torch's allocator, the driver or a library of CUDA had no memory left; the last two say it in text."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY_LEFT)
    return said or isinstance(error, torch.OutOfMemoryError)
