"""Peak memory of a run on one device, part by part; pure arithmetic over a model's shape and a run config.

Activations are counted as transformers' decoder layers, PEFT's adapters and SDPA attention keep them for autograd;
tests compare the sum with a real step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from trainyard_crds.optimizers import OPTIMIZERS
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.memory.recompute import Recompute
from trainyard_trainer.tasks.text.memory.chunks import rows_per_chunk
from trainyard_trainer.tasks.text.memory.shape import ModelShape

_FP32 = 4
_CUDA_CONTEXT = 500 * 2**20
"""Driver, kernels and cuBLAS workspace of one process."""
_INPUTS_IN_FLIGHT = 2
"""Offloaded layer inputs on the device: the one in use and the one being copied."""
_LEAST_8BIT_SIZE = 4096
"""bitsandbytes keeps 32-bit moments of smaller tensors."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes by part, all of which exist at the same time at the peak.

    Attributes:
        parts: On the device.
        recompute: The recompute mode.
        on_host: Bytes of pinned host memory.
    """

    parts: dict[str, int]
    recompute: Recompute
    on_host: int = 0

    @property
    def peak(self) -> int:
        """Their sum."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Run:
    """A run config with derived numbers."""

    config: RunConfig
    shape: ModelShape
    width: int = field(init=False)
    """Bytes of a value of the base model and its activations."""
    adapted: dict[str, tuple[int, int]] = field(init=False)
    whole: int = field(init=False)
    """Values trained whole: all in full training, those of modulesToSave beside an adapter."""

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "width", 4 if self.config.optimization.precision == "fp32" else 2)
        set_field(self, "adapted", _adapted(self.config, self.shape))
        set_field(self, "whole", _trained_whole(self.config, self.shape))

    @property
    def tokens(self) -> int:
        return self.config.optimization.batch_size * self.config.llm.max_length

    @property
    def by_boundaries(self) -> bool:
        """Whether attention uses position boundaries; the GPU's kernel supports 16-bit types only."""
        return self.config.llm.packing and (self.config.gpus == 0 or self.width < _FP32)

    @property
    def rank(self) -> int:
        return self.config.adapter.rank if self.config.adapter else 0

    @property
    def adapter_sizes(self) -> list[int]:
        return [size * self.rank for pair in self.adapted.values() for size in pair]

    @property
    def head_is_trained(self) -> bool:
        saved = (self.config.adapter.modules_to_save or ()) if self.config.adapter else ()
        return self.config.method == "full" or "lm_head" in saved


def estimate(config: RunConfig, shape: ModelShape, recompute: Recompute) -> Estimate:
    """Predict the peak of a training step; a sequence has `llm.maxLength` tokens, all of which may carry loss.

    Args:
        config: The run.
        shape: Its base model.
        recompute: Which layers keep their activations, and which only their input.
    """
    run = _Run(config, shape)
    parts = {"weights": _weights(run), "quantisation constants": _constants(run)}
    parts |= {"adapters": _FP32 * sum(run.adapter_sizes), "modules trained whole": _copies(run)}
    parts |= {"fp32 copies of the weights": _masters(run)}
    gradients = run.width * run.whole + parts["adapters"]
    activations, working = _activations(run, recompute)
    head = _head(run)
    parts |= {"optimizer": _resident_moments(run, activations + max(head, working)), "gradients": gradients}
    if run.config.optimization.gradient_accumulation == 1 and config.method == "full":
        # Gradients grow while activations are freed: the peak holds the larger of both.
        before_embedding = gradients - run.width * run.shape.late_embedding
        gradients = max(0, before_embedding + working - activations - max(head, working))
        parts["gradients"] = gradients
    in_fp32 = _FP32 * run.whole + parts["adapters"]
    if in_fp32 > gradients + activations + max(head, working):
        # The optimizer's step comes after all activations are freed, with the gradients in fp32.
        parts["gradients"], activations, head, working = in_fp32, 0, 0, 0
    parts |= {"activations": activations, "logits and working memory": max(head, working)}
    if config.method == "full" and config.processes > 1:
        parts = _spread(run, parts)
    parts["CUDA context"] = context_bytes(config)
    on_host = recompute.layers * _layer_input(run) if recompute.mode == "offload" else 0
    present = {name: size for name, size in parts.items() if size}
    return Estimate(parts=present, recompute=recompute, on_host=on_host)


def _spread(run: _Run, parts: dict[str, int]) -> dict[str, int]:
    """Return the parts of a sharded run: a device's share of weights, gradients and moments, and what a pass gathers.

    Weights outside the blocks stay whole through a step, beside the block in use and the next one. Whole gradients, and
    the fp32 copy in which they are summed, exist for one of them at a time.
    """
    blocks = sum(rows * columns for rows, columns in run.shape.linear().values()) + run.shape.experts
    block, rest = blocks // run.shape.layers, run.shape.parameters - blocks
    gathered = {"weights": run.width * (rest + 2 * block), "gradients": (run.width + _FP32) * max(rest, block)}
    names = ("weights", "fp32 copies of the weights", "gradients", "optimizer")
    shared = {name: -(-parts[name] // run.config.processes) for name in names}
    spread = {**parts, **{name: size + gathered.get(name, 0) for name, size in shared.items()}}
    # Every process loads the whole model before it is sharded.
    return {**spread, "whole model while loading": max(0, parts["weights"] - sum(spread.values()))}


def context_bytes(config: RunConfig) -> int:
    """Return the bytes that the driver holds on a GPU for the process, before the run allocates."""
    return _CUDA_CONTEXT if config.gpus else 0


def checkpoint_copy(config: RunConfig, shape: ModelShape) -> int:
    """Return the bytes of host memory for the copy of a checkpoint: trained weights, their fp32 copies and moments.

    The copy is kept from the first checkpoint to the end of the run.
    """
    run = _Run(config, shape)
    return run.width * run.whole + _masters(run) + _FP32 * sum(run.adapter_sizes) + _moments(run)


def _adapted(config: RunConfig, shape: ModelShape) -> dict[str, tuple[int, int]]:
    if config.adapter is None:
        return {}
    linear, targets = shape.linear(), config.adapter.targets
    if targets == ["all-linear"]:
        return linear
    return {name: pair for name, pair in linear.items() if any(_is_named(name, target) for target in targets)}


def _trained_whole(config: RunConfig, shape: ModelShape) -> int:
    if config.method == "full":
        return shape.parameters
    saved = (config.adapter.modules_to_save or ()) if config.adapter else ()
    return sum(
        prod(size)
        for name, size in shape.tensors.items()
        if any(_is_named(name.rpartition(".")[0], one) for one in saved)
    )


def _is_named(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _quantized(run: _Run) -> int:
    """Values stored in 4 bits."""
    return sum(rows * columns for rows, columns in run.shape.linear().values()) if run.config.quantization else 0


def _weights(run: _Run) -> int:
    quantized = _quantized(run)
    return quantized // 2 + run.width * (run.shape.parameters - quantized)


def _constants(run: _Run) -> int:
    """One scale for 64 values, fp32, or 8 bits with an fp32 scale for 256 of them."""
    blocks = _quantized(run) // 64
    if run.config.quantization and run.config.quantization.double_quant:
        return blocks + _FP32 * (blocks // 256)
    return _FP32 * blocks


def _copies(run: _Run) -> int:
    """PEFT trains a copy of a module and keeps the original."""
    return 0 if run.config.method == "full" else run.width * run.whole


def _masters(run: _Run) -> int:
    """The optimizer updates fp32 copies of 16-bit weights (`engine.master_weights`)."""
    return 0 if run.width == _FP32 else _FP32 * run.whole


def _moments(run: _Run) -> int:
    traits = OPTIMIZERS[run.config.optimization.optimizer]
    if not traits.is_8bit:
        return traits.moments * _FP32 * (run.whole + sum(run.adapter_sizes))
    small = sum(size for size in run.adapter_sizes if size < _LEAST_8BIT_SIZE)
    large = run.whole + sum(run.adapter_sizes) - small
    return traits.moments * (_FP32 * small + large + _FP32 * (large // 256))


def _resident_moments(run: _Run, transient: int) -> int:
    """Return the bytes of the moments on the device at the peak, beside transient bytes.

    Paged moments move to the host for activations and return for the optimizer's step.
    """
    is_paged = OPTIMIZERS[run.config.optimization.optimizer].is_paged
    return max(0, _moments(run) - transient) if is_paged else _moments(run)


def _layer_input(run: _Run) -> int:
    return run.tokens * run.shape.hidden * run.width


def _activations(run: _Run, recompute: Recompute) -> tuple[int, int]:
    """Return the bytes kept for the backward pass, and the most that a layer's backward pass adds."""
    shape, tokens = run.shape, run.tokens
    layer = tokens * _layer_bytes_per_token(run)
    mask = 0 if run.by_boundaries else _mask(run)
    working = tokens * run.width * (2 * shape.intermediate + shape.hidden)
    if run.config.quantization:
        working += run.width * max(rows * columns for rows, columns in shape.linear().values())
    inputs = recompute.layers * _layer_input(run)
    if recompute.mode == "offload":
        inputs = min(_INPUTS_IN_FLIGHT, recompute.layers) * _layer_input(run)
    if recompute.layers == recompute.of:
        return inputs + mask, layer + working
    return inputs + (recompute.of - recompute.layers) * layer + mask, working


def _mask(run: _Run) -> int:
    """Return the bytes of attention's mask; on a GPU also in the type of the activations."""
    copies = run.width if run.config.gpus else 0
    return run.config.optimization.batch_size * run.config.llm.max_length**2 * (1 + copies)


def _layer_bytes_per_token(run: _Run) -> int:
    """Return the bytes that one layer keeps per token.

    A norm keeps its input in fp32, and in full training its result before the weight. The feed-forward part keeps its
    gate, the activated gate, and the other half.
    """
    shape, width = run.shape, run.width
    full = run.config.method == "full"
    kept = 2 * shape.hidden * (_FP32 + (width if full else 0))
    if shape.normed_heads:
        kept += (shape.queries + shape.keys) * (_FP32 + (width if full else 0))
    kept += _attention(run) + (3 if shape.gated else 2) * shape.intermediate * width
    return kept + _linear_inputs(run)


def _attention(run: _Run) -> int:
    """Return queries, keys, values and the result; under a mask, keys and values repeated to the heads of queries."""
    shape, width = run.shape, run.width
    if not run.by_boundaries:
        return 4 * shape.queries * width
    is_shared = run.config.gpus and (run.config.method == "full" or any("o_proj" in name for name in run.adapted))
    result = 0 if is_shared else shape.queries * width  # else the next linear layer keeps the same tensor
    return (shape.queries + 2 * shape.keys) * width + result


def _linear_inputs(run: _Run) -> int:
    """Return the inputs that linear layers keep, per token: all in full training, else those with an adapter."""
    shape, width = run.shape, run.width
    if run.config.method == "full":
        return width * (2 * shape.hidden + shape.queries + shape.intermediate)
    inputs = [columns for _, columns in run.adapted.values()]
    if run.config.adapter is not None and run.config.adapter.dropout > 0:
        # Not fused: PEFT casts each adapter's input to fp32, and dropout adds a copy with a mask.
        mask = 1 if run.config.gpus else _FP32
        return (sum(inputs) * (_FP32 + mask) + _FP32 * run.rank * len(inputs)) // shape.layers
    return width * (sum(_distinct_inputs(run.adapted)) + run.rank * len(inputs)) // shape.layers


def _distinct_inputs(adapted: dict[str, tuple[int, int]]) -> list[int]:
    """Return the sizes of distinct inputs: query, key and value read the same tensor, and so do gate and up."""
    shared = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}
    seen: dict[str, int] = {}
    for name, (_, columns) in adapted.items():
        parent, _, last = name.rpartition(".")
        seen[f"{parent}.{shared.get(last, last)}"] = columns
    return list(seen.values())


def _head(run: _Run) -> int:
    """Return the bytes of the final norm, a chunk of logits with its gradient, and the gradients kept by the loss."""
    shape, tokens, width = run.shape, run.tokens, run.width
    rows = min(tokens, rows_per_chunk(shape.vocabulary))
    logits = rows * shape.vocabulary * (_FP32 + (width if width != _FP32 else 0))
    hidden = tokens * shape.hidden * (_FP32 + (width if run.config.method == "full" else 0) + 3 * width)
    return logits + hidden + (_FP32 * shape.vocabulary * shape.hidden if run.head_is_trained else 0)


def flops_per_token(config: RunConfig, shape: ModelShape) -> float:
    """Return the operations of a training step per token, without attention's products and recomputation.

    A weight costs a multiplication and an addition in the forward pass, two for its input's gradient, and two for its
    own gradient where it is trained.
    """
    run = _Run(config, shape)
    weights = sum(rows * columns for rows, columns in shape.linear().values()) + shape.experts
    weights += shape.vocabulary * shape.hidden
    return 6.0 * weights if config.method == "full" else 4.0 * weights + 6.0 * sum(run.adapter_sizes)
