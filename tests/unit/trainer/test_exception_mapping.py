"""Mapping of third-party exceptions."""

from pathlib import Path

import pytest
import torch

from trainyard_trainer.errors import GpuMemoryError
from trainyard_trainer.exception_mapping import to_trainer_error
from trainyard_trainer.tasks.llm.definition import LLM


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["torch's allocator", "the driver", "cuBLAS", "cuDNN"],
)
def test_out_of_gpu_memory_exits_79_with_advice(error: Exception) -> None:
    ours = to_trainer_error(error, Path("/run"), LLM.memory_advice)
    assert (type(ours), ours.exit_code) == (GpuMemoryError, 79)
    assert "optimization.batchSize" in ours.advice


def test_other_cuda_errors_are_internal_errors() -> None:
    assert (
        to_trainer_error(
            RuntimeError("CUDA error: device-side assert triggered"), Path("/run"), LLM.memory_advice
        ).exit_code
        == 70
    )
