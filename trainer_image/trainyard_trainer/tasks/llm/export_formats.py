"""The export formats of the llm task: one table, checked before the first step, written after the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard_crds import exports
from trainyard_crds.exports import Export
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.task import ExportNotes, TrainData
from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.batches import TextBatch
from trainyard_trainer.tasks.text.export.adapter_merge import check_mergeable
from trainyard_trainer.tasks.text.export.format import ExportFormat, ExportJob
from trainyard_trainer.tasks.text.export.gguf import check_gguf, gguf_usage, remark_on_gguf, write_gguf
from trainyard_trainer.tasks.text.export.logit_diff import LogitDiff, probe_of
from trainyard_trainer.tasks.text.export.merged import write_merged
from trainyard_trainer.tasks.text.export.readme import adapter_usage, model_usage, write_readme
from trainyard_trainer.tasks.text.export.stored_weights import check_plain_weights, read_config, weights_digest
from trainyard_trainer.tasks.text.export.weights import write_weights

FORMATS: Mapping[exports.ExportFormat, ExportFormat] = {
    "adapter": ExportFormat(title="Adapter for", usage=adapter_usage, write=write_weights),
    "model": ExportFormat(title="Fine-tuned", usage=model_usage, write=write_weights),
    "merged": ExportFormat(
        title="Fine-tuned (adapter merged)", usage=model_usage, write=write_merged, merges=True, compares=True
    ),
    "gguf": ExportFormat(
        title="Fine-tuned, in GGUF:",
        usage=gguf_usage,
        write=write_gguf,
        check=check_gguf,
        remark=remark_on_gguf,
        merges=True,
    ),
}


def first_batch(train: TrainData) -> TextBatch:
    """Return the beginning of the training rows, on which models are compared."""
    batch = train.micro_batch(0, 0)
    assert isinstance(batch, TextBatch)
    return probe_of(batch)


def needs_trained_model(request: Export) -> bool:
    """Whether an export is made from the loaded model, not from files alone."""
    return FORMATS[request.format].compares or request.base == "dequantized"


def check_exports(config: RunConfig, base: LocalModel) -> None:
    """Refuse what could not be exported at the end, before rows are read or weights are loaded.

    Raises:
        ConfigurationError: The base model's architecture, tokenizer or weights do not allow it.
    """
    for request in config.exports:
        FORMATS[request.format].check(base)
    if _merges(config):
        check_plain_weights(base.path, base.name)


def check_merges(config: RunConfig, model: Any, base: LocalModel) -> None:
    """Refuse adapters that could not be merged at the end, before the first step.

    Raises:
        ConfigurationError: The adapter changes tensors that the base model's files do not hold.
    """
    if _merges(config):
        check_mergeable(model, base.path)


def write_export(job: ExportJob) -> ExportNotes:
    """Write one export with its README.

    Raises:
        StopRequested: The run is to stop.
    """
    form = FORMATS[job.request.format]
    merged_into = _merged_into(job.config, job.request)
    diff = form.write(job)
    write_readme(job, form, merged_into)
    return (
        ExportNotes(message=_message(job, form, diff), facts=_facts(job, merged_into, diff))
        if form.merges
        else ExportNotes()
    )


def _merges(config: RunConfig) -> bool:
    return any(_merged_into(config, request) is not None for request in config.exports)


def _merged_into(config: RunConfig, request: Export) -> str | None:
    if config.method == "full" or not FORMATS[request.format].merges:
        return None
    return request.base or "original"


def _facts(job: ExportJob, merged_into: str | None, diff: LogitDiff | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "baseModel": {
            "source": job.base.name,
            "revision": job.base.revision,
            "architecture": read_config(job.base.path).get("model_type"),
            "weights": weights_digest(job.base.path),
        }
    }
    if merged_into is not None:
        facts["mergedInto"] = merged_into
    if diff is not None:
        facts["logitDifference"] = diff.facts
    return facts


def _message(job: ExportJob, form: ExportFormat, diff: LogitDiff | None) -> str | None:
    sentences = (_difference(job, diff), form.remark(job.tokenizer))
    return " ".join(sentence for sentence in sentences if sentence) or None


def _difference(job: ExportJob, diff: LogitDiff | None) -> str | None:
    """Return the measured difference; else, after qlora, that the merge has one which was not measured."""
    if diff is not None:
        return f"{_warning(job)} {diff.sentence}" if diff.is_large else diff.sentence
    if job.config.method != "qlora" or job.request.base == "dequantized":
        return None
    return "Merged into the original base model, not the 4-bit one it was trained on; format merged measures how far."


def _warning(job: ExportJob) -> str:
    """Say that an export is not the model that was trained, and what to do."""
    if job.config.method == "qlora" and job.request.base != "dequantized":
        remedy = "it is merged into the original base model, not the 4-bit one it was trained on; set base: dequantized"
    else:
        remedy = "use the adapter instead, and compare both on your own data"
    return f"Warning: this export differs much from the trained model: {remedy}."
