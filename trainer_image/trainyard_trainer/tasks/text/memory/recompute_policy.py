"""Chooses the recompute mode of a run by its free memory; pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.memory.recompute import Recompute, recompute_of
from trainyard_trainer.tasks.text.memory.estimate import context_bytes, estimate
from trainyard_trainer.tasks.text.memory.shape import ModelShape

MARGIN = 0.85
"""Share of a device's memory that a prediction may fill: the allocator leaves gaps, and predictions err."""


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that a run can allocate; None where unknown.

    Attributes:
        device: Of the GPU, including what its driver holds for this process; of the container, on a CPU.
        host: Of the container.
    """

    device: int | None = None
    host: int | None = None


def choose_recompute(config: RunConfig, shape: ModelShape, free: FreeMemory) -> Recompute:
    """Return the mode that the config sets; with auto the fastest that fits.

    Recomputing a layer's activations costs a third of its time, so as few layers as possible recompute. Copying inputs
    to the host comes last.

    Args:
        config: The run.
        shape: Its base model.
        free: Free memory.
    """
    setting, layers = config.optimization.recompute, shape.layers
    if setting in {"none", "full", "offload"}:
        return recompute_of(setting, layers)
    needed = _layers_needed(config, shape, free.device)
    if setting == "selective":
        half = recompute_of("selective", layers)
        return recompute_of("selective", layers, max(half.layers, layers if needed is None else needed))
    if needed == 0:
        return recompute_of("none", layers)
    if needed is not None and needed < layers:
        return recompute_of("selective", layers, needed)
    offload = recompute_of("offload", layers)
    fits_host = free.host is None or estimate(config, shape, offload).on_host <= MARGIN * free.host
    if needed is None and config.gpus > 0 and fits_host:
        return offload
    return recompute_of("full", layers)


def _layers_needed(config: RunConfig, shape: ModelShape, device: int | None) -> int | None:
    """Return the fewest layers to recompute for the run to fit; None where all are not enough."""
    if device is None:
        return 0
    held = context_bytes(config)
    room, of = MARGIN * (device - held), shape.layers

    def fits(layers: int) -> bool:
        way = recompute_of("full", of) if layers == of else recompute_of("selective", of, layers)
        return estimate(config, shape, way).peak - held <= room

    if fits(0):
        return 0
    fewest = bisect_left(range(of), True, lo=1, key=fits)
    return fewest if fewest < of or fits(of) else None
