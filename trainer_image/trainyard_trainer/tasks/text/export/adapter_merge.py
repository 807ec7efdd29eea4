"""Merges LoRA into base weights one tensor at a time: no second model in memory.

W' = W + scaling * B A (Hu et al., 2021), computed in fp32 and rounded once to the type of W.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.text.export.stored_weights import Shard, read_shards
from trainyard_trainer.tasks.text.models.adapter import CONFIG_FILE, WEIGHTS_FILE
from trainyard_trainer.tasks.text.models.libraries import import_bitsandbytes

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


Substitute = Callable[[str], Tensor | None]
"""Returns the tensor to use instead of the stored one of that name; None keeps the stored one."""


def keep_stored(_name: str) -> Tensor | None:
    """Keep every stored tensor."""
    return None


@dataclass(frozen=True)
class Delta:
    """The update of one weight."""

    down: Tensor
    """A, (r, in)."""
    up: Tensor
    """B, (out, r)."""
    scaling: float
    transposed: bool
    """Whether the stored weight is (in, out)."""

    def added_to(self, weight: Tensor) -> Tensor:
        """Return W + scaling * B A, in the weight's type."""
        update = (self.up.float() @ self.down.float()) * self.scaling
        return (weight.float() + (update.T if self.transposed else update)).to(weight.dtype)


@dataclass(frozen=True)
class TrainedAdapter:
    """A PEFT directory's content, by the names of the base model's tensors."""

    deltas: Mapping[str, Delta]
    replaced: Mapping[str, Tensor]
    """Whole tensors trained beside the LoRA matrices (modules_to_save)."""

    def applied(self, name: str, weight: Tensor) -> Tensor:
        """Return a base tensor as the trained model has it."""
        if (whole := self.replaced.get(name)) is not None:
            return whole.to(weight.dtype)
        delta = self.deltas.get(name)
        return weight if delta is None else delta.added_to(weight)


def read_adapter(directory: Path, names: frozenset[str], transposed: frozenset[str]) -> TrainedAdapter:
    """Read a PEFT directory.

    Args:
        directory: The PEFT directory.
        names: The base model's stored tensors.
        transposed: Names of those that are stored as (in, out). PEFT's `fan_in_fan_out` is the layout in memory, which
            differs after qlora: 4-bit layers are (out, in) always.

    Raises:
        ConfigurationError: It changes tensors that are not stored.
    """
    config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(directory / WEIGHTS_FILE).items()}
    scaling = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    deltas: dict[str, Delta] = {}
    replaced: dict[str, Tensor] = {}
    tied: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_A):
            module = name.removesuffix(_A)
            weight = stored_name(f"{module}.weight", names)
            deltas[weight] = Delta(tensor, tensors[f"{module}{_B}"], scaling, weight in transposed)
        elif not name.endswith(_B):
            (replaced if is_stored(name, names) else tied)[name] = tensor
    for name, tensor in tied.items():
        if not any(torch.equal(tensor, other) for other in replaced.values() if other.shape == tensor.shape):
            stored_name(name, names)  # raises: the adapter changes it apart from the tensor it is tied to
    return TrainedAdapter(deltas, {stored_name(name, names): tensor for name, tensor in replaced.items()})


def is_stored(name: str, stored: frozenset[str]) -> bool:
    """Whether a tensor of the loaded model is stored under its own name, with or without the base model's prefix."""
    return name in stored or name.partition(".")[2] in stored


def stored_name(name: str, stored: frozenset[str]) -> str:
    """Return the stored name of a tensor of the loaded model: the same, or without the base model's prefix.

    Raises:
        ConfigurationError: It is not stored: tied to another one, or stored in another form than it runs in.
    """
    for candidate in (name, name.partition(".")[2]):
        if candidate in stored:
            return candidate
    raise _unmergeable(name, "leave that module out of spec.adapter.targets")


def _unmergeable(name: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"The adapter changes {name}, which the base model's files do not hold as such (it is tied to another tensor, "
        "or stored in another form), so it cannot be merged.",
        f"Export the adapter only, or {remedy}.",
    )


def stored_names(shards: list[Shard]) -> frozenset[str]:
    """Return the names of all stored tensors."""
    return frozenset(name for shard in shards for name in shard.names)


def check_mergeable(model: Any, base: Path) -> None:
    """Check before the first step that a model's adapter can be merged at the end.

    Raises:
        ConfigurationError: It cannot; the remedy names the layers that can be merged.
    """
    names = stored_names(read_shards(base))
    stored: dict[str, int] = {}
    missing: dict[str, int] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            plain = name.removeprefix(_PREFIX).replace(".default", "").replace(".modules_to_save", "")
            plain = plain.replace(".lora_A", "").replace(".lora_B", "")
            (stored if is_stored(plain, names) else missing)[plain] = id(parameter)
    for name, parameter in missing.items():
        if parameter not in stored.values():  # else it is tied to a tensor that is stored
            raise _unmergeable(name.replace(".base_layer", ""), _remedy(stored))


def _remedy(mergeable: Iterable[str]) -> str:
    layers = sorted({name.split(".")[-2] for name in mergeable if name.endswith(".weight")})
    if not layers:
        return "name other layers in spec.adapter.targets"
    return f"set spec.adapter.targets to layers that can be merged: {', '.join(layers)}"


def transposed_names(base: Path, stored: frozenset[str]) -> frozenset[str]:
    """Return the names of the stored tensors that are (in, out): those of GPT-2's Conv1D layers.

    The shape does not tell: it may be square. The model is built without weights from its config.json.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(base), local_files_only=True))
    layers = (f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D))
    return frozenset(stored_name(name, stored) for name in layers)


def merged_shards(
    base: Path, adapter: Path, substitute: Substitute = keep_stored
) -> Iterator[tuple[Shard, Iterator[tuple[str, Tensor]]]]:
    """Yield every weight file of the base model with its tensors, merged one at a time."""
    shards = read_shards(base)
    names = stored_names(shards)
    trained = read_adapter(adapter, names, transposed_names(base, names))
    for shard in shards:
        yield shard, _merged(shard, trained, substitute)


def _merged(shard: Shard, trained: TrainedAdapter, substitute: Substitute) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in shard.tensors():
        other = substitute(name)
        yield name, trained.applied(name, tensor if other is None else other)


class Dequantized:
    """The 4-bit weights of a loaded model by stored name, dequantised one at a time."""

    def __init__(self, model: Any, base: Path) -> None:
        stored = stored_names(read_shards(base))
        self._transposed = transposed_names(base, stored)
        self._bitsandbytes = import_bitsandbytes()
        kind = self._bitsandbytes.nn.Linear4bit
        self._weights = {
            stored_name(f"{_plain(name)}.weight", stored): module.weight
            for name, module in model.named_modules()
            if isinstance(module, kind)
        }

    @property
    def dtype(self) -> torch.dtype:
        """The type of the dequantised weights."""
        dtype: torch.dtype = next(iter(self._weights.values())).quant_state.dtype
        return dtype

    def __call__(self, name: str) -> Tensor | None:
        """Return the dequantised weight on the CPU in the stored layout; None for tensors that are not quantised."""
        weight = self._weights.get(name)
        if weight is None:
            return None
        tensor: Tensor = self._bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        return (tensor.T if name in self._transposed else tensor).cpu()


def _plain(module: str) -> str:
    return module.removeprefix(_PREFIX).removesuffix(".base_layer")
