"""`merged`: a transformers directory with the adapter merged into its base model."""

from __future__ import annotations

import json
import shutil
from typing import Any

import torch
from safetensors.torch import save_file

from trainyard_trainer.tasks.text.export.adapter_merge import Dequantized, keep_stored, merged_shards
from trainyard_trainer.tasks.text.export.format import ExportJob
from trainyard_trainer.tasks.text.export.logit_diff import LogitDiff, measure
from trainyard_trainer.tasks.text.export.stored_weights import INDEX, read_config
from trainyard_trainer.tasks.text.models.loading import load_base_model
from trainyard_trainer.tasks.text.models.tokenizer import save_tokenizer

_COPIED = ("generation_config.json",)
_SPARE_MEMORY = 1.5
"""A GPU is used for a comparison when its free memory is this many times the exported files."""


def write_merged(job: ExportJob) -> LogitDiff:
    """Write the merged model, load it, and compare it with the trained one.

    Raises:
        StopRequested: The run is to stop.
    """
    assert job.probe is not None
    _write_model(job)
    job.poll()

    def load() -> Any:
        precision = job.config.optimization.precision
        return load_base_model(job.directory, "the merged model", precision=precision, device=_comparison_device(job))

    return measure(job.model, load, job.probe)


def _write_model(job: ExportJob) -> None:
    """Write the merged model file by file: at most one of them is in memory."""
    base, directory, substitute = job.base.path, job.directory, None
    if job.request.base == "dequantized":
        substitute = Dequantized(job.model, base)
    for shard, tensors in merged_shards(base, job.weights, substitute or keep_stored):
        merged = {}
        for name, tensor in tensors:
            job.poll()
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
    save_tokenizer(job.tokenizer, directory)


def _comparison_device(job: ExportJob) -> torch.device:
    """Return the run's device when it has room for one more model, else the CPU."""
    device = job.context.device
    needed = _SPARE_MEMORY * sum(path.stat().st_size for path in job.directory.glob("*.safetensors"))
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] > needed:
        return device
    return torch.device("cpu")
