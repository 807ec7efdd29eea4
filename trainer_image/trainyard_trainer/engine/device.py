"""The device a run trains on."""

from __future__ import annotations

import torch

from trainyard_trainer.errors import ConfigurationError


def choose_device(gpus: int, local_rank: int = 0) -> torch.device:
    """Return the GPU of this process when the run has GPUs, else the CPU.

    Args:
        gpus: GPUs of the run on this node.
        local_rank: Number of this process on this node.

    Raises:
        ConfigurationError: torch finds fewer GPUs than the run has.
    """
    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"gpus is {gpus}, but no CUDA device is available to the trainer.",
            "Set resources.gpus: 0 (gpus: 0 in a run config) to train on the CPU, or check the node's NVIDIA driver.",
        )
    if (found := torch.cuda.device_count()) < gpus:
        raise ConfigurationError(
            f"gpus is {gpus}, but the trainer sees {found} CUDA devices.",
            f"Set resources.gpus: {found} (gpus and processes: {found} in a run config), or check the node's driver.",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def slow_precision(device: torch.device, precision: str) -> str | None:
    """Return a warning if a run computes in bf16 on a CPU without instructions for it; None otherwise.

    There, torch multiplies bf16 matrices without its vectorised kernels: 50 times slower than fp32, measured on a CPU
    with AVX2 only.
    """
    if device.type != "cpu" or precision != "bf16":
        return None
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001 - there is no public function
        return None
    return (
        "This CPU has no bf16 instructions: matrices of precision bf16 are multiplied many times slower than those of"
        " fp32. Set optimization.precision: fp32."
    )


def gpu_uuids(gpus: int) -> list[str]:
    """Return the NVML names of the run's GPUs on this node."""
    return [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(gpus)]
