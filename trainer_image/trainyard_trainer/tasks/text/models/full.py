"""Whole models, saved in the format of transformers and loaded bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.group.sharding import local_shard, shard_like
from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries
from trainyard_trainer.tasks.text.models.tokenizer import save_tokenizer


def save_model(model: Any, tokenizer: Any, directory: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a transformers directory: safetensors weights, config and tokenizer.

    Args:
        model: A model of transformers.
        tokenizer: Its tokenizer.
        directory: The target.
        weights: A copy of its state, tied weights tied; default: the current state.
    """
    quiet_libraries()
    model.save_pretrained(str(directory), state_dict=None if weights is None else dict(weights))
    save_tokenizer(tokenizer, directory)


def load_model_weights(model: Any, directory: Path) -> None:
    """Load weights that `save_model` wrote into the model.

    transformers reads them on the CPU, since some architectures are stored in another layout than they run in.

    Raises:
        NotFoundError: The directory holds other tensors than the model.
    """
    quiet_libraries()
    saved = type(model).from_pretrained(str(directory), local_files_only=True, dtype=model.dtype).state_dict()
    own = model.state_dict()
    if {name: tensor.shape for name, tensor in saved.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise NotFoundError(f"The weights in {directory} do not fit the model of this run.")
    with torch.no_grad():
        for name, tensor in own.items():
            local_shard(tensor).copy_(local_shard(shard_like(saved[name], tensor)))
