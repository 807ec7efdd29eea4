"""Which modules of a model take an adapter, and which can be trained whole."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainyard_crds.trainingjob_training import Adapter
from trainyard_trainer.errors import ConfigurationError

_ALL_LINEAR = ["all-linear"]
_STATE_SPACE_TYPES = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
_READ_BY_KERNELS = ("out_proj", "conv1d")
"""State-space kernels read the weights of these layers without calling them: PEFT refuses adapters there."""
_OTHER_OUTPUT = ("Router", "GroupedLinear")
"""Name endings of subclasses of `nn.Linear` with another output: Llama 4, Phi-MoE, DeepSeek V4."""


def target_names(model: Any, adapter: Adapter) -> list[str]:
    """Return the names of the modules that get an adapter, as PEFT matches them.

    `all-linear` is every linear layer except the output layer, layers of a subclass with another output (routers of
    experts), and those of state-space blocks that a kernel reads.

    Raises:
        ConfigurationError: A target is no linear layer of the model, or the model has none.
    """
    targets = list(adapter.targets)
    if targets != _ALL_LINEAR:
        _check_targets(model, targets)
        return targets
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is not head and takes_adapter(module)]
    if model.config.model_type in _STATE_SPACE_TYPES:
        names = [name for name in names if name.rsplit(".", 1)[-1] not in _READ_BY_KERNELS]
    if not names:
        raise ConfigurationError(
            f"The model ({model.config.model_type}) has no linear layer that can take an adapter.",
            "Use method: full, or another model.",
        )
    return names


def whole_names(model: Any, adapter: Adapter) -> list[str]:
    """Return the names of the modules that are trained whole.

    Where the output layer is tied to the embedding, naming one of them names both: PEFT then trains one tensor and
    stores it under both names. (With the embedding's name alone, PEFT ties only an embedding called embed_tokens.)

    Raises:
        ConfigurationError: A module is not there, holds other modules, or is stored in 4 bits.
    """
    names = list(adapter.modules_to_save or ())
    for wanted in names:
        _check_whole(model, wanted)
    tied = tied_names(model)
    if any(_matches(name, wanted) for name in tied for wanted in names):
        names += [name for name in tied if not any(_matches(name, wanted) for wanted in names)]
    return names


def tied_names(model: Any) -> tuple[str, ...]:
    """Return the names of the embedding and of the output layer tied to it; nothing where they are two tensors."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return ()
    names = {id(module): name for name, module in model.named_modules()}
    return names[id(embedding)], names[id(head)]


def takes_adapter(module: nn.Module) -> bool:
    """Whether PEFT can adapt a module: linear layers, quantised ones too (subclasses), and GPT-2's transposed ones."""
    name = type(module).__name__
    return name == "Conv1D" or (isinstance(module, nn.Linear) and not name.endswith(_OTHER_OUTPUT))


def _check_targets(model: nn.Module, targets: list[str]) -> None:
    """PEFT matches a target with the end of a module's name; whatever it matches must be a linear layer."""
    names = {name for name, module in model.named_modules() if takes_adapter(module)}
    short = sorted({name.rsplit(".", 1)[-1] for name in names})
    for target in targets:
        if not any(_matches(name, target) for name in names):
            raise ConfigurationError(
                f"spec.adapter.targets names '{target}', but the model has no such linear layer.",
                f"Use all-linear, or some of: {', '.join(short)}.",
            )


def _check_whole(model: nn.Module, wanted: str) -> None:
    """PEFT passes over a name it does not find, fails on blocks of layers, and cannot train 4-bit weights."""
    found = [module for name, module in model.named_modules() if _matches(name, wanted)]
    if not found:
        raise ConfigurationError(
            f"spec.adapter.modulesToSave names '{wanted}', but the model has no such module.",
            "Name a module of the model, for example embed_tokens or lm_head.",
        )
    if any(next(module.children(), None) is not None for module in found):
        raise ConfigurationError(
            f"spec.adapter.modulesToSave names '{wanted}', which is a block of layers; only single layers can be "
            "trained whole.",
            "Name the layers themselves (for example embed_tokens, lm_head, norms), or leave the block to the adapter.",
        )
    if not all(parameter.is_floating_point() for module in found for parameter in module.parameters()):
        raise ConfigurationError(
            f"spec.adapter.modulesToSave names '{wanted}', whose weights are stored in 4 bits and cannot be "
            "trained whole.",
            "Use method: lora, or name modules that stay as they are: embed_tokens, lm_head, norms.",
        )


def _matches(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")
