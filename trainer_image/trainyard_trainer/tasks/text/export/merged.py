"""`merged`: a transformers directory with the adapter merged into its base model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from trainyard_trainer.tasks.text.export.base import INDEX, read_config, read_shards
from trainyard_trainer.tasks.text.export.merge import Dequantized, keep, merged_shards, stored_names

_COPIED = ("generation_config.json",)


def export_merged(
    base: Path,
    adapter: Path,
    tokenizer: Any,
    directory: Path,
    *,
    dequantized_from: Any | None,
    poll: Callable[[], None],
) -> None:
    """Write the merged model file by file: at most one of them is in memory.

    Args:
        base: Directory of the base model.
        adapter: A PEFT directory.
        tokenizer: The model's tokenizer.
        directory: An empty directory.
        dequantized_from: The loaded 4-bit model whose weights take the place of the original ones; None for those.
        poll: Called between tensors; may raise.
    """
    substitute = None if dequantized_from is None else Dequantized(dequantized_from, stored_names(read_shards(base)))
    for shard, tensors in merged_shards(base, adapter, substitute or keep):
        merged = {}
        for name, tensor in tensors:
            poll()
            merged[name] = tensor.contiguous()
        save_file(merged, directory / shard.path.name, metadata={"format": "pt"})
    config = read_config(base)
    if substitute is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = str(substitute.dtype).removeprefix("torch.")
    (directory / "config.json").write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")
    for name in (*_COPIED, INDEX):
        if (base / name).is_file():
            shutil.copyfile(base / name, directory / name)
    tokenizer.save_pretrained(str(directory))
