"""The exports of a language model: what is asked for, checked before the first step, made after the last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainyard_crds.exports import Export
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.task import ExportNotes, RunContext, TrainData
from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.batches import TextBatch
from trainyard_trainer.tasks.text.export.adapter import export_weights
from trainyard_trainer.tasks.text.export.base import check_plain_weights, read_config, read_shards, weights_digest
from trainyard_trainer.tasks.text.export.logit_diff import Difference, measure, probe_of
from trainyard_trainer.tasks.text.export.merge import Dequantized, check_mergeable, keep, merged_shards, stored_names
from trainyard_trainer.tasks.text.export.merged import export_merged
from trainyard_trainer.tasks.text.export.readme import Facts, write_readme
from trainyard_trainer.tasks.text.models.loading import load_base_model

_SPARE_MEMORY = 1.5
"""A GPU is used for a comparison when its free memory is this many times the exported files."""


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """What exports are made from, beside a checkpoint."""

    config: RunConfig
    base: LocalModel
    tokenizer: Any
    model: Any
    """The trained model; None where the format is not made from it."""
    probe: TextBatch | None
    """Rows that models are compared on; None where the format is not compared."""


def first_batch(train: TrainData) -> TextBatch:
    """The beginning of the training rows, to compare models on."""
    batch = train.micro_batch(0, 0)
    assert isinstance(batch, TextBatch)
    return probe_of(batch)


def check_exports(config: RunConfig, base: LocalModel) -> None:
    """Refuse what could not be exported at the end, before rows are read or weights are loaded.

    Raises:
        ConfigurationError: the base model's architecture, tokenizer or weights do not allow it.
    """
    if any(export.format == "gguf" for export in config.exports):
        from trainyard_trainer.tasks.text.export.gguf import check_supported

        check_supported(base.path, base.name)
    if _merges(config):
        check_plain_weights(base.path, base.name)


def check_merges(config: RunConfig, model: Any, base: LocalModel) -> None:
    """Refuse adapters that could not be merged at the end, before the first step.

    Raises:
        ConfigurationError: the adapter changes tensors that the base model's files do not hold.
    """
    if _merges(config):
        check_mergeable(model, base.path)


def write_export(
    source: ExportSource, context: RunContext, request: Export, weights: Path, directory: Path
) -> ExportNotes:
    """Write one export.

    Args:
        source: What it is made from.
        context: The run.
        request: The format and its options.
        weights: The checkpoint's weights.
        directory: An empty directory.

    Raises:
        StopRequested: The run was asked to stop.
    """
    match request.format:
        case "adapter" | "model":
            export_weights(weights, source.tokenizer, directory, _facts(source, request))
            return ExportNotes()
        case "merged":
            return _write_merged(source, context, request, weights, directory)
        case "gguf":
            return _write_gguf(source, context, request, weights, directory)


def _merges(config: RunConfig) -> bool:
    return any(_merged_into(config, export) is not None for export in config.exports)


def _write_merged(
    source: ExportSource, context: RunContext, request: Export, weights: Path, directory: Path
) -> ExportNotes:
    assert source.probe is not None
    poll = context.stop.check
    quantized = source.model if request.base == "dequantized" else None
    export_merged(source.base.path, weights, source.tokenizer, directory, dequantized_from=quantized, poll=poll)
    write_readme(directory, _facts(source, request))
    poll()

    def load() -> Any:
        precision = source.config.optimization.precision
        return load_base_model(
            directory, "the merged model", precision=precision, device=_roomy_device(context.device, directory)
        )

    return _notes(source, request, measure(source.model, load, source.probe))


def _write_gguf(
    source: ExportSource, context: RunContext, request: Export, weights: Path, directory: Path
) -> ExportNotes:
    from trainyard_trainer.tasks.text.export.gguf import export_gguf

    full = source.config.method == "full"
    model = weights if full else source.base.path
    shards = read_shards(model)
    if full:
        merged = ((shard, shard.tensors()) for shard in shards)
    else:
        dequantized = request.base == "dequantized"
        substitute = Dequantized(source.model, stored_names(shards)) if dequantized else keep
        merged = (pair for pair in merged_shards(model, weights, substitute))
    shapes = {name: shape for shard in shards for name, shape in shard.shapes().items()}
    kind = request.type or "bf16"
    job = source.config.job
    export_gguf(
        merged,
        shapes,
        source.base.path,
        directory / f"model-{kind}.gguf",
        name=job.name if job else source.base.name,
        type_=kind,
        poll=context.stop.check,
    )
    write_readme(directory, _facts(source, request))
    return _notes(source, request, None)


def _roomy_device(device: torch.device, directory: Path) -> torch.device:
    """The run's device when there is room for one more model, else the CPU."""
    needed = _SPARE_MEMORY * sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] > needed:
        return device
    return torch.device("cpu")


def _notes(source: ExportSource, request: Export, difference: Difference | None) -> ExportNotes:
    facts: dict[str, Any] = {
        "baseModel": {
            "source": source.base.name,
            "revision": source.base.revision,
            "architecture": read_config(source.base.path).get("model_type"),
            "weights": weights_digest(source.base.path),
        }
    }
    if (merged_into := _merged_into(source.config, request)) is not None:
        facts["mergedInto"] = merged_into
    if difference is not None:
        facts["logitDifference"] = difference.facts
    message = difference.sentence if difference is not None else _unmeasured(source.config, request)
    return ExportNotes(message=message, facts=facts)


def _unmeasured(config: RunConfig, request: Export) -> str | None:
    """A 4-bit base that was exchanged for another one is never passed over in silence."""
    if config.method != "qlora" or request.base == "dequantized":
        return None
    return "Merged into the original base model, not the 4-bit one it was trained on; format merged measures how far."


def _merged_into(config: RunConfig, request: Export) -> str | None:
    if config.method == "full" or request.format not in {"merged", "gguf"}:
        return None
    return request.base or "original"


def _facts(source: ExportSource, request: Export) -> Facts:
    return Facts(
        format=request.format,
        method=source.config.method,
        base=source.base,
        merged_into=_merged_into(source.config, request),
    )
