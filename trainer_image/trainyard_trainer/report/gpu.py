"""The run's GPUs as NVML sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pynvml

from trainyard_crds.report import MOST_GPUS, Gpu

GpuSampler = Callable[[], list[Gpu]]


def no_gpus() -> list[Gpu]:
    """The sample of a run on the CPU."""
    return []


def gpus_of_all_pods(sample: GpuSampler, pod: int, all_gather: Callable[[Any], list[Any]]) -> GpuSampler:
    """A sampler of the GPUs of all pods of a group, which all its processes call together.

    Args:
        sample: This process's share: the GPUs of its pod in one process of it, none in the others.
        pod: Index of its pod.
        all_gather: Gives the JSON values of all processes, by their ranks.
    """

    def sample_all() -> list[Gpu]:
        own = [gpu.model_copy(update={"pod": pod}).to_json() for gpu in sample()]
        found = [Gpu.model_validate(one) for share in all_gather(own) for one in share]
        return found[:MOST_GPUS]

    return sample_all


class NvmlGpus:
    """Memory in use and utilisation of some GPUs."""

    def __init__(self, handles: Sequence[object]) -> None:
        self._handles = handles

    def __call__(self) -> list[Gpu]:
        """One sample of every GPU; empty when the driver does not answer."""
        try:
            return [_sample(handle) for handle in self._handles]
        except pynvml.NVMLError:
            return []


def create_gpu_sampler(uuids: Sequence[str]) -> GpuSampler:
    """A sampler of the GPUs with these UUIDs (as NVML writes them: `GPU-...`).

    Without GPUs, or where the driver's management library is missing, it has nothing to say: training does not need it.
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
    except pynvml.NVMLError_NotSupported:  # a MIG slice has no utilisation of its own
        utilization = 0
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        memory_used=int(memory.used),
        memory_total=int(memory.total),
        utilization=int(utilization),
    )
