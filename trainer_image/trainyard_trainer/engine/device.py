"""The device a run trains on."""

from __future__ import annotations

import torch

from trainyard_trainer.errors import ConfigurationError


def choose_device(gpus: int) -> torch.device:
    """The GPU when the run was given one, else the CPU.

    Raises:
        ConfigurationError: The run was given GPUs, but torch finds none.
    """
    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"gpus is {gpus}, but no CUDA device is available to the trainer.",
            "Set resources.gpus: 0 (gpus: 0 in a run config) to train on the CPU, or check the node's NVIDIA driver.",
        )
    return torch.device("cuda", 0)


def gpu_uuids(device: torch.device) -> list[str]:
    """The names by which the driver's management library knows the GPUs in use."""
    if device.type != "cuda":
        return []
    return [f"GPU-{torch.cuda.get_device_properties(device).uuid}"]
