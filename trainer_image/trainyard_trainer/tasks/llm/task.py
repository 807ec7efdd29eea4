"""The llm task: fine-tuning of causal language models on rows of text and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainyard_crds.exports import Export
from trainyard_crds.report import Stage
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.task import ExportNotes, Loaded, MicroBatch, ParameterGroup, RunContext
from trainyard_trainer.memory.recompute import Recompute, recompute_of
from trainyard_trainer.sources.resolve import LocalModel, resolve_model
from trainyard_trainer.tasks.llm.export_formats import (
    FORMATS,
    check_exports,
    check_merges,
    first_batch,
    needs_trained_model,
    write_export,
)
from trainyard_trainer.tasks.llm.memory import plan_memory
from trainyard_trainer.tasks.llm.model_checks import (
    check_causal,
    check_lengths,
    check_method,
    check_packing,
    check_quantized,
    check_tokens,
)
from trainyard_trainer.tasks.llm.rows import access_of, fetch_rows, prepare_rows
from trainyard_trainer.tasks.text.batches import TextBatch, TextBatches
from trainyard_trainer.tasks.text.evaluate import mean_loss
from trainyard_trainer.tasks.text.export.format import ExportJob
from trainyard_trainer.tasks.text.loss import find_chunk_rows, summed_loss
from trainyard_trainer.tasks.text.models.adapter import adapter_weights, add_adapter, load_adapter, save_adapter
from trainyard_trainer.tasks.text.models.attention import has_eager_attention
from trainyard_trainer.tasks.text.models.full import load_model_weights, save_model
from trainyard_trainer.tasks.text.models.libraries import import_libraries
from trainyard_trainer.tasks.text.models.loading import load_base_model
from trainyard_trainer.tasks.text.models.recompute import recompute_activations
from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class LlmLoaded(Loaded):
    """A language model, its tokenizer and its rows."""

    config: RunConfig
    base: LocalModel
    tokenizer: Any
    evaluation: TextBatches | None
    chunk_rows: int | None
    """Rows per chunk of logits; None where the architecture needs them all at once."""


class LlmTask:
    """Implements `engine.task.Task`."""

    def load(self, context: RunContext) -> LlmLoaded:
        """Fetch everything, check and tokenise the rows, then load the model: mistakes are mostly in the rows.

        Raises:
            TrainerError: The model or the rows cannot be fetched or used; StopRequested on a stop.
        """
        config = context.config
        import_libraries(adapter=config.adapter is not None)
        context.stop.check()
        # Pods with caches of their own download while the first pod prepares the rows for all.
        with context.group.main_process_first(context.stop.check, context.resolved.values):
            context.stage(Stage.DOWNLOADING)
            base = resolve_model(config.model, context.resolved, context.stop.check, access_of(context))
            check_method(config, base)
            check_exports(config, base)
            train, validation = fetch_rows(context)
            context.stop.check()
        with context.group.main_process_first(context.stop.check, context.resolved.values):
            context.stage(Stage.PREPARING_DATA)
            tokenizer = load_tokenizer(base.path, base.name)
            prepared = prepare_rows(context, base, tokenizer, train, validation)
        context.metrics.update(prepared.metrics)
        if prepared.invalid_rows is not None:
            context.invalid_rows(prepared.invalid_rows)
        context.stage(Stage.LOADING_MODEL)
        planned = plan_memory(context, base)
        model = _load_model(context, base, planned.recompute)
        context.stop.check()
        check_merges(config, model, base)
        check_tokens(model, base, prepared)
        check_lengths(model, base, prepared)
        check_causal(context, model, base)
        check_packing(context, model)
        chunk_rows = find_chunk_rows(model, context.device)
        if config.method == "full":
            context.group.shard(model)
        return LlmLoaded(
            model=model,
            train=prepared.train,
            has_evaluation=prepared.evaluation is not None,
            parameter_groups=_parameter_groups(config, model),
            model_source=base.name,
            model_revision=base.revision,
            config=config,
            base=base,
            tokenizer=tokenizer,
            evaluation=prepared.evaluation,
            chunk_rows=chunk_rows,
            flops_per_item=planned.flops_per_token,
        )

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        """Sum of the cross-entropy over the batch's loss tokens; scalar, fp32."""
        assert isinstance(batch, TextBatch)
        device = next(loaded.model.parameters()).device
        return summed_loss(loaded.model, batch.to(device), _ours(loaded).chunk_rows)

    def evaluate(self, loaded: Loaded, context: RunContext) -> dict[str, float]:
        """`evalLoss`: mean cross-entropy per loss token of the held-out rows, in nats."""
        rows, poll, chunk_rows = _ours(loaded).evaluation, context.stop.check, _ours(loaded).chunk_rows
        assert rows is not None
        loss = mean_loss(loaded.model, rows, context.device, poll, chunk_rows=chunk_rows, group=context.group)
        return {"evalLoss": loss}

    def weights(self, loaded: Loaded) -> Mapping[str, Tensor]:
        """The adapter's tensors, or the whole model's for `full`."""
        if _ours(loaded).config.method == "full":
            return loaded.model.state_dict()
        return adapter_weights(loaded.model)

    def save_weights(self, loaded: Loaded, weights: Mapping[str, Tensor], directory: Path) -> None:
        """Write a PEFT directory, or a transformers directory for `full`."""
        ours = _ours(loaded)
        if ours.config.method == "full":
            save_model(ours.model, ours.tokenizer, directory, weights)
        else:
            save_adapter(ours.model, directory, weights)

    def load_weights(self, loaded: Loaded, directory: Path) -> None:
        """Load what `save_weights` wrote, bit for bit."""
        if _ours(loaded).config.method == "full":
            load_model_weights(loaded.model, directory)
        else:
            load_adapter(loaded.model, directory)

    def export(
        self, loaded: Loaded, context: RunContext, request: Export, weights: Path, directory: Path
    ) -> ExportNotes:
        """Write an export by `tasks.llm.export_formats`."""
        ours = _ours(loaded)
        if FORMATS[request.format].compares:
            self.load_weights(loaded, weights)  # the exported checkpoint need not be the last one
        return write_export(
            ExportJob(
                context=context,
                request=request,
                base=ours.base,
                tokenizer=ours.tokenizer,
                model=ours.model,
                probe=first_batch(ours.train),
                weights=weights,
                directory=directory,
            )
        )

    def export_saved(self, context: RunContext, request: Export, weights: Path, directory: Path) -> ExportNotes:
        """Write an export of a finished run; load its model and rows only where the format needs them."""
        config = context.config
        import_libraries(adapter=config.adapter is not None)
        context.stop.check()
        base = resolve_model(config.model, context.resolved, context.stop.check, access_of(context))
        check_exports(config, base)
        tokenizer = load_tokenizer(base.path, base.name)
        compares = FORMATS[request.format].compares
        rows = prepare_rows(context, base, tokenizer, *fetch_rows(context)) if compares else None
        context.stop.check()
        model = None
        if needs_trained_model(request):
            model = _load_model(context, base, recompute_of("none", 0))
            load_adapter(model, weights)
        return write_export(
            ExportJob(
                context=context,
                request=request,
                base=base,
                tokenizer=tokenizer,
                model=model,
                probe=first_batch(rows.train) if rows else None,
                weights=weights,
                directory=directory,
            )
        )


def _ours(loaded: Loaded) -> LlmLoaded:
    assert isinstance(loaded, LlmLoaded)
    return loaded


def _load_model(context: RunContext, base: LocalModel, recompute: Recompute) -> Any:
    """Load the model as the method trains it, in training mode."""
    config = context.config
    model = load_base_model(
        base.path,
        base.name,
        precision=config.optimization.precision,
        device=context.device,
        quantization=config.quantization,
    )
    if config.quantization is not None:
        check_quantized(context, model, base)
    if has_eager_attention(model):
        context.log(
            "EagerAttention",
            f"{base.name} has an architecture without fused attention: every layer keeps a matrix of all pairs of"
            " tokens, so memory and time grow with the square of llm.maxLength, and the memory plan is too low.",
        )
    if config.adapter is not None:
        seed = config.optimization.seed
        model = add_adapter(model, config.adapter, seed=seed, base=base.reference, revision=base.revision)
    recompute_activations(model, recompute)
    model.train()
    return model


def _parameter_groups(config: RunConfig, model: nn.Module) -> Sequence[ParameterGroup]:
    """Return one group; in full training with weight decay, a second one without it for norms and biases."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = config.optimization.learning_rate, config.optimization.weight_decay
    if config.method != "full":
        return [ParameterGroup(name="adapter", parameters=trainable, learning_rate=rate, weight_decay=decay)]
    matrices = [parameter for parameter in trainable if decay == 0 or parameter.ndim > 1]
    vectors = [parameter for parameter in trainable if decay > 0 and parameter.ndim <= 1]
    groups = [ParameterGroup(name="model", parameters=matrices, learning_rate=rate, weight_decay=decay)]
    if vectors:
        groups.append(ParameterGroup(name="modelVectors", parameters=vectors, learning_rate=rate, weight_decay=0.0))
    return groups
