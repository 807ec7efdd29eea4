"""Samples of the run's GPUs from NVML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pynvml

from trainyard_crds.report import MOST_GPUS, Gpu

GpuSampler = Callable[[], list[Gpu]]


def no_gpus() -> list[Gpu]:
    """Return the sample of a run on the CPU."""
    return []


def gpus_of_all_pods(sample: GpuSampler, pod: int, all_gather: Callable[[Any], list[Any]]) -> GpuSampler:
    """Return a sampler of the GPUs of all pods of a group; all its processes must call it together.

    Args:
        sample: Samples the GPUs of this pod in one process of it, and none in the others.
        pod: Index of this pod.
        all_gather: Returns the JSON values of all processes, by rank.
    """

    def sample_all() -> list[Gpu]:
        own = [gpu.model_copy(update={"pod": pod}).to_json() for gpu in sample()]
        gathered = [Gpu.model_validate(one) for sample_of_process in all_gather(own) for one in sample_of_process]
        return gathered[:MOST_GPUS]

    return sample_all


class NvmlGpus:
    """Sampler of memory in use and utilization of GPUs."""

    def __init__(self, handles: Sequence[object]) -> None:
        self._handles = handles

    def __call__(self) -> list[Gpu]:
        """Return one sample of every GPU; empty if the driver fails."""
        try:
            return [_sample(handle) for handle in self._handles]
        except pynvml.NVMLError:
            return []


def create_gpu_sampler(uuids: Sequence[str]) -> GpuSampler:
    """Return a sampler of the GPUs with these UUIDs (in NVML's form: `GPU-...`).

    Without GPUs or without NVML its samples are empty, since training does not depend on them.
    """
    if not uuids:
        return no_gpus
    try:
        pynvml.nvmlInit()
        return NvmlGpus([pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids])
    except pynvml.NVMLError:
        return no_gpus


def _sample(handle: object) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        utilization = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
    except pynvml.NVMLError_NotSupported:  # NVML reports no utilization for a MIG slice
        utilization = 0
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        memory_used=int(memory.used),
        memory_total=int(memory.total),
        utilization=int(utilization),
    )
