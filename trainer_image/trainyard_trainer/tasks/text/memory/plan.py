"""The memory plan of a run and what would lower it most; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainyard_crds.optimizers import OPTIMIZERS
from trainyard_crds.report import MemoryEstimate
from trainyard_crds.runconfig import RunConfig
from trainyard_crds.trainingjob_training import Adapter, Quantization
from trainyard_trainer.memory.recompute import Mode, Recompute, recompute_of
from trainyard_trainer.tasks.text.memory.estimate import Estimate, checkpoint_copy, estimate
from trainyard_trainer.tasks.text.memory.recompute_policy import MARGIN, FreeMemory, choose_recompute
from trainyard_trainer.tasks.text.memory.shape import ModelShape

_MOST_ADVICE = 3
_ADVICE_LIMIT = 256
_SHORT = 0.7
"""Share of the device above which a report has advice; below it, the advice would only distract."""
_MODES: tuple[Mode, ...] = ("none", "selective", "full", "offload")
_Change = tuple[str, RunConfig, Recompute]
"""Advice, and the run config and recompute mode that it results in."""


def describe(found: Estimate, config: RunConfig, shape: ModelShape, free: FreeMemory) -> MemoryEstimate:
    """Return the estimate as it is reported."""
    options = config.optimization
    basis = (
        f"{config.method}, {options.precision}, {options.batch_size} x {config.llm.max_length} tokens per "
        f"forward pass, {options.optimizer}, recompute {found.recompute}"
    )
    is_short = free.device is None or found.peak > _SHORT * free.device
    advised = advice_text(config, shape, found.recompute) if is_short else ""
    return MemoryEstimate(
        bytes=found.peak,
        least_bytes=_least(config, shape, found),
        basis=basis,
        device_bytes=free.device,
        advice=advised or None,
    )


def advice_text(config: RunConfig, shape: ModelShape, recompute: Recompute) -> str:
    """Return the advice as one line of bounded length; empty where nothing helps."""
    return "; ".join(advice(config, shape, recompute))[:_ADVICE_LIMIT]


def _least(config: RunConfig, shape: ModelShape, found: Estimate) -> int:
    """Return the peak on the smallest device that suffices."""
    if config.optimization.recompute != "auto":
        return found.peak
    return min(estimate(config, shape, recompute_of(mode, shape.layers)).peak for mode in _modes(config))


def advice(config: RunConfig, shape: ModelShape, recompute: Recompute) -> list[str]:
    """Return changes that lower the peak, the most effective first, each with its saving."""
    before = estimate(config, shape, recompute).peak
    changes = _changes(config, recompute)
    found = [(before - estimate(changed, shape, way).peak, text) for text, changed, way in changes]
    worth = sorted((saved, text) for saved, text in found if saved > 0.01 * before)
    return [f"{text} (saves {gib(saved)})" for saved, text in reversed(worth)][:_MOST_ADVICE]


def table(config: RunConfig, shape: ModelShape, device: int | None = None) -> str:
    """Return the plan for a terminal: parts and peak by recompute mode, host memory, and the best savings.

    Args:
        config: The run.
        shape: Its base model.
        device: Bytes of the device; None shows the modes alone.
    """
    modes = _modes(config)
    found = [estimate(config, shape, recompute_of(mode, shape.layers)) for mode in modes]
    names = dict.fromkeys(name for one in found for name in one.parts)
    rows = [("part", *modes), *((name, *(gib(one.parts.get(name, 0)) for one in found)) for name in names)]
    rows.append(("peak", *(gib(one.peak) for one in found)))
    lines = ["  ".join([f"{name:<26}", *(f"{value:>10}" for value in values)]).rstrip() for name, *values in rows]
    lines += ["", *_host_lines(config, shape, found[-1]), "", *_choice_lines(config, shape, device)]
    chosen = choose_recompute(config, shape, FreeMemory(device)) if device else found[-1].recompute
    lowering = advice(config, shape, chosen)
    return "\n".join([*lines, "", "What would lower the peak most:", *(f"- {one}" for one in lowering or ["nothing"])])


def _modes(config: RunConfig) -> tuple[Mode, ...]:
    return _MODES if config.gpus else _MODES[:-1]


def _host_lines(config: RunConfig, shape: ModelShape, last: Estimate) -> Iterator[str]:
    where = "Host memory" if config.gpus else "Memory"
    yield f"{where} beside it, for the copy that a checkpoint is written from: {gib(checkpoint_copy(config, shape))}"
    if last.on_host:
        yield f"Host memory beside it, pinned, for the layers' inputs with offload: {gib(last.on_host)}"


def _choice_lines(config: RunConfig, shape: ModelShape, device: int | None) -> Iterator[str]:
    setting = config.optimization.recompute
    half = recompute_of("selective", shape.layers)
    if device is None:
        yield f"The columns are the modes of optimization.recompute ({setting} here); {half} in the second."
        yield f"auto takes the fastest that fits {MARGIN:.0%} of the device, with as few layers as that takes."
        return
    chosen = choose_recompute(config, shape, FreeMemory(device))
    peak = estimate(config, shape, chosen).peak
    fits = "fits" if peak <= device else "does NOT fit"
    yield f"optimization.recompute: {setting} means {chosen} on a device with {gib(device)}: {gib(peak)}, which {fits}."


def gib(size: int) -> str:
    """Return bytes as GiB with two digits, or as MiB below 1 GiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _changes(config: RunConfig, recompute: Recompute) -> Iterator[_Change]:
    options, length = config.optimization, config.llm.max_length
    if options.batch_size > 1:
        half, more = options.batch_size // 2, 2 * options.gradient_accumulation
        text = f"set optimization.batchSize: {half} and gradientAccumulation: {more}"
        yield text, _with(config, "optimization", batch_size=half, gradient_accumulation=more), recompute
    if length >= 512:
        yield f"set llm.maxLength: {length // 2}", _with(config, "llm", max_length=length // 2), recompute
    lighter = OPTIMIZERS[options.optimizer].lighter
    if lighter is not None and (config.gpus or not OPTIMIZERS[lighter].is_paged):
        text = f"set optimization.optimizer: {lighter}"
        yield text, _with(config, "optimization", optimizer=lighter), recompute
    for mode in _modes(config)[2:]:
        if _MODES.index(mode) > _MODES.index(recompute.mode):
            yield f"set optimization.recompute: {mode}", config, recompute_of(mode, recompute.of)
    yield from ((text, changed, recompute) for text, changed in _method_changes(config))


def _method_changes(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    if config.method != "qlora":
        yield "use method: qlora", _qlora(config)
    if config.method == "full":
        yield "use method: lora", _qlora(config).model_copy(update={"method": "lora", "quantization": None})
    if config.adapter is not None and config.adapter.rank > 8:
        rank = config.adapter.rank // 2
        yield f"set adapter.rank: {rank}", _with(config, "adapter", rank=rank)


def _with(config: RunConfig, block: str, **values: Any) -> RunConfig:
    return config.model_copy(update={block: getattr(config, block).model_copy(update=values)})


def _qlora(config: RunConfig) -> RunConfig:
    blocks = {"adapter": config.adapter or Adapter(), "quantization": Quantization()}
    return config.model_copy(update={"method": "qlora", **blocks})
