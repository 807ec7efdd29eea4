"""LoRA adapters by PEFT, saved so that plain PEFT loads them on the plain base model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainyard_crds.trainingjob_training import Adapter
from trainyard_trainer.errors import ConfigurationError, NotFoundError
from trainyard_trainer.tasks.text.models.adapter_targets import target_names, tied_names, whole_names
from trainyard_trainer.tasks.text.models.fused import fuse_adapter
from trainyard_trainer.tasks.text.models.libraries import import_bitsandbytes

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def add_adapter(model: Any, adapter: Adapter, *, seed: int, base: str, revision: str | None) -> Any:
    """Add a trainable LoRA adapter and freeze the base model.

    The same seed gives the same adapter; the global random state does not change. The adapter's weights are fp32 for
    every type of the base model: bf16 would round small updates away.

    Args:
        model: A causal language model of transformers.
        adapter: Rank, alpha, dropout, targets and modules trained whole.
        seed: Seed of the initial weights.
        base: The base model that the adapter names.
        revision: The base model's commit, if it has one.

    Raises:
        ConfigurationError: A target is no module of the model that can take an adapter, a module cannot be trained
            whole, or PEFT refuses the model.
    """
    import_bitsandbytes()
    from peft import LoraConfig, get_peft_model

    targets, whole = target_names(model, adapter), whole_names(model, adapter)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        use_rslora=adapter.use_rslora,
        modules_to_save=whole or None,
        ensure_weight_tying=bool(whole) and bool(tied_names(model)),
        task_type="CAUSAL_LM",
        bias="none",
    )
    with torch.random.fork_rng(), _refusals_translated(model.config.model_type):
        torch.manual_seed(seed)
        peft_model = get_peft_model(model, config)
    fuse_adapter(peft_model)
    config.base_model_name_or_path = base
    config.revision = revision
    return peft_model


def adapter_weights(model: Any) -> dict[str, Tensor]:
    """Return the adapter's tensors (no copies), named as in a PEFT directory; a tied one stands under both names."""
    from peft import get_peft_model_state_dict

    # Without state_dict, PEFT selects the same tensors after packing every quantised weight of the base model.
    named = model.named_parameters(remove_duplicate=False)
    trainable = {name: tensor for name, tensor in named if tensor.requires_grad}
    weights: dict[str, Tensor] = get_peft_model_state_dict(model, state_dict=trainable, save_embedding_layers=False)
    return weights


def save_adapter(model: Any, directory: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a PEFT directory; the same adapter gives the same bytes.

    Args:
        model: A model with an adapter.
        directory: The target.
        weights: A copy of its `adapter_weights`; default: the current ones.
    """
    weights = adapter_weights(model) if weights is None else weights
    save_file(_unshared(weights), directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {**model.active_peft_config.to_dict(), "inference_mode": True}
    document = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (directory / CONFIG_FILE).write_text(f"{document}\n")


def load_adapter(model: Any, directory: Path) -> None:
    """Load weights that `save_adapter` wrote into the model, bit for bit.

    Raises:
        NotFoundError: The directory holds no weights for this adapter.
    """
    from peft import set_peft_model_state_dict

    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise NotFoundError(f"{directory} holds no adapter: {WEIGHTS_FILE} is missing.")
    state = load_file(path)
    own = adapter_weights(model)
    if {name: tensor.shape for name, tensor in state.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise NotFoundError(f"The adapter in {directory} has other tensors than this model's adapter.")
    set_peft_model_state_dict(model, state)


def attach_adapter(model: Any, directory: Path, name: str) -> Any:
    """The model with a trained adapter, frozen.

    Args:
        model: The base model the adapter was trained on.
        directory: A PEFT directory with safetensors weights.
        name: How messages call it.

    Raises:
        ConfigurationError: the adapter does not fit the model.
        NotFoundError: the directory holds no safetensors adapter.
    """
    import_bitsandbytes()
    from peft import PeftModel

    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / file).is_file():
            raise NotFoundError(f"{name} holds no adapter: {file} is missing.", "Name a PEFT directory.")
    try:
        return PeftModel.from_pretrained(model, str(directory))
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise ConfigurationError(
            f"The adapter {name} does not fit the model: {reason}", "Use the base model it was trained on."
        ) from error


def _plain(value: object) -> object:
    """JSON for what PEFT keeps in a config: sets come sorted, enums as their value."""
    return sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU; a tied one is copied for its second name, since safetensors stores no shared memory."""
    tensors: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, weight in weights.items():
        tensor = weight.detach().cpu().contiguous()
        tensors[name] = tensor.clone() if tensor.data_ptr() in written else tensor
        written.add(tensor.data_ptr())
    return tensors


@contextmanager
def _refusals_translated(architecture: str) -> Iterator[None]:
    """PEFT refuses a layer or a whole architecture with an error of its own, which a retry would not change."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(" .:")
        raise ConfigurationError(
            f"An adapter cannot be added to this model ({architecture}): {reason}.",
            "Name other modules in spec.adapter.targets and spec.adapter.modulesToSave, or use method: full.",
        ) from error
