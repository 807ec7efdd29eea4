"""Which activations a run computes again, chosen by what its device has room for; pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.memory.recompute import Recompute, recomputing
from trainyard_trainer.tasks.text.memory.estimate import context_bytes, estimate
from trainyard_trainer.tasks.text.memory.shape import ModelShape

MARGIN = 0.85
"""Share of a device's memory a run may be predicted to fill: the allocator leaves gaps, and a prediction errs."""


@dataclass(frozen=True)
class Room:
    """Bytes a run may take; None where that is not known.

    Attributes:
        device: Of the GPU, with what its driver holds for this process; of the container, on a CPU.
        host: Of the container.
    """

    device: int | None = None
    host: int | None = None


def choose_recompute(config: RunConfig, shape: ModelShape, room: Room) -> Recompute:
    """The way the user asks for; with auto the fastest that fits.

    Computing a layer's activations again costs a third of its time, so as few layers as possible do it. Copying inputs
    to the host comes last.

    Args:
        config: The run.
        shape: Its base model.
        room: What there is.
    """
    asked, layers = config.optimization.recompute, shape.layers
    if asked in {"none", "full", "offload"}:
        return recomputing(asked, layers)
    needed = _layers_needed(config, shape, room.device)
    if asked == "selective":
        half = recomputing("selective", layers)
        return recomputing("selective", layers, max(half.layers, layers if needed is None else needed))
    if needed == 0:
        return recomputing("none", layers)
    if needed is not None and needed < layers:
        return recomputing("selective", layers, needed)
    offload = recomputing("offload", layers)
    is_short = needed is None and config.gpus > 0
    if is_short and (room.host is None or estimate(config, shape, offload).on_host <= MARGIN * room.host):
        return offload
    return recomputing("full", layers)


def _layers_needed(config: RunConfig, shape: ModelShape, device: int | None) -> int | None:
    """How few layers must be computed again for the run to fit; None where not even all would do."""
    if device is None:
        return 0
    held = context_bytes(config)
    room, of = MARGIN * (device - held), shape.layers

    def fits(layers: int) -> bool:
        way = recomputing("full", of) if layers == of else recomputing("selective", of, layers)
        return estimate(config, shape, way).peak - held <= room

    if fits(0):
        return 0
    fewest = bisect_left(range(of), True, lo=1, key=fits)
    return fewest if fewest < of or fits(of) else None
