"""What a run's memory is made of, what would lower it most, and whether activations must be recomputed; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainyard_crds.report import MemoryEstimate
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.memory.estimate import Estimate, Recompute, checkpoint_copy, estimate
from trainyard_trainer.memory.shape import ModelShape

_MARGIN = 0.85
"""Share of a GPU's memory a run may be predicted to fill: the allocator leaves gaps, and a prediction errs."""
_MOST_ADVICE = 3


def choose_recompute(config: RunConfig, shape: ModelShape, device_bytes: int | None) -> Recompute:
    """Keep activations where they fit; recomputing them costs a third of the speed.

    Args:
        config: The run.
        shape: Its base model.
        device_bytes: Memory of the GPU; None on a CPU, where nothing is recomputed.
    """
    if device_bytes is None or estimate(config, shape, "none").peak <= _MARGIN * device_bytes:
        return "none"
    return "full"


def describe(found: Estimate, config: RunConfig) -> MemoryEstimate:
    """The estimate as it is reported."""
    kept = "recomputed" if found.recompute == "full" else "kept"
    options = config.optimization
    return MemoryEstimate(
        bytes=found.peak,
        basis=f"{config.method}, {options.precision}, {options.batch_size} x {config.llm.max_length} tokens per "
        f"forward pass, {options.optimizer}, activations {kept}",
    )


def advice(config: RunConfig, shape: ModelShape, recompute: Recompute) -> list[str]:
    """Changes that would lower the peak, the most effective first, each with what it saves."""
    before = estimate(config, shape, recompute).peak
    found = [(before - estimate(changed, shape, recompute).peak, text) for text, changed in _changes(config)]
    worth = sorted((saved, text) for saved, text in found if saved > 0.01 * before)
    return [f"{text} (saves {gib(saved)})" for saved, text in reversed(worth)][:_MOST_ADVICE]


def table(config: RunConfig, shape: ModelShape) -> str:
    """The parts, the peak, the host's copy of a checkpoint, and what would lower the peak most, for a terminal."""
    choices: tuple[Recompute, ...] = ("none", "full") if config.gpus else ("none",)
    found = [estimate(config, shape, choice) for choice in choices]
    heads = ["activations kept", "recomputed"][: len(found)]
    names = dict.fromkeys(name for one in found for name in one.parts)
    rows = [(name, *(gib(one.parts.get(name, 0)) for one in found)) for name in names]
    rows = [("part", *heads), *rows, ("peak", *(gib(one.peak) for one in found))]
    lines = ["  ".join([f"{name:<26}", *(f"{value:>16}" for value in values)]).rstrip() for name, *values in rows]
    where = "Host memory" if config.gpus else "Memory"
    copy = gib(checkpoint_copy(config, shape))
    lines += ["", f"{where} beside it, for the copy that a checkpoint is written from: {copy}"]
    lowering = advice(config, shape, choices[-1])
    return "\n".join([*lines, "", "What would lower the peak most:", *(f"- {one}" for one in lowering or ["nothing"])])


def gib(size: int) -> str:
    """Bytes for people: GiB with two digits, MiB below one of them."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _changes(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Sentences for a user, with the config they lead to."""
    options, length = config.optimization, config.llm.max_length
    if options.batch_size > 1:
        half, more = options.batch_size // 2, 2 * options.gradient_accumulation
        yield (
            f"set optimization.batchSize: {half} and gradientAccumulation: {more}",
            _with(config, "optimization", batch_size=half, gradient_accumulation=more),
        )
    if length >= 512:
        yield f"set llm.maxLength: {length // 2}", _with(config, "llm", max_length=length // 2)
    if config.method != "qlora":
        yield "use method: qlora", _qlora(config)
    if config.method == "full":
        yield "use method: lora", _qlora(config).model_copy(update={"method": "lora", "quantization": None})
    if config.adapter is not None and config.adapter.rank > 8:
        rank = config.adapter.rank // 2
        yield f"set adapter.rank: {rank}", _with(config, "adapter", rank=rank)
    if options.optimizer == "adamw":
        yield "set optimization.optimizer: adamw8bit", _with(config, "optimization", optimizer="adamw8bit")


def _with(config: RunConfig, block: str, **values: Any) -> RunConfig:
    return config.model_copy(update={block: getattr(config, block).model_copy(update=values)})


def _qlora(config: RunConfig) -> RunConfig:
    document = {**config.to_json(), "method": "qlora"}
    document.pop("exports", None)
    return RunConfig.model_validate(document)
