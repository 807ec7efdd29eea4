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
from trainyard_trainer.checkpoint.store import CACHE
from trainyard_trainer.engine.task import ExportNotes, Loaded, MicroBatch, ParameterGroup, RunContext
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.memory.recompute import Recompute, recompute_of
from trainyard_trainer.sources.resolve import Access, LocalModel, resolve_file, resolve_model
from trainyard_trainer.tasks.llm.export_formats import (
    FORMATS,
    check_exports,
    check_merges,
    first_batch,
    needs_trained_model,
    write_export,
)
from trainyard_trainer.tasks.llm.memory import plan_memory
from trainyard_trainer.tasks.text.batches import BatchSettings, TextBatch, TextBatches
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.evaluate import mean_loss
from trainyard_trainer.tasks.text.example_file import RowFile
from trainyard_trainer.tasks.text.export.format import ExportJob
from trainyard_trainer.tasks.text.loss import find_chunk_rows, summed_loss
from trainyard_trainer.tasks.text.models.adapter import adapter_weights, add_adapter, load_adapter, save_adapter
from trainyard_trainer.tasks.text.models.full import load_model_weights, save_model
from trainyard_trainer.tasks.text.models.libraries import import_libraries
from trainyard_trainer.tasks.text.models.loading import load_base_model, load_tokenizer
from trainyard_trainer.tasks.text.models.recompute import recompute_activations
from trainyard_trainer.tasks.text.packing_isolation import enable_boundary_attention, isolates_packed_rows
from trainyard_trainer.tasks.text.prepare import DataRequest, Prepared, prepare
from trainyard_trainer.tasks.text.token_cache import TokenCache


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
            base = resolve_model(config.model, context.resolved, context.stop.check, _access(context))
            check_exports(config, base)
            train, validation = _fetch_rows(context)
            context.stop.check()
        with context.group.main_process_first(context.stop.check):
            context.stage(Stage.PREPARING_DATA)
            tokenizer = load_tokenizer(base.path, base.name)
            prepared = _prepare(context, base, tokenizer, train, validation)
        context.metrics.update(prepared.metrics)
        context.stage(Stage.LOADING_MODEL)
        planned = plan_memory(context, base)
        model = _load_model(context, base, planned.recompute)
        context.stop.check()
        check_merges(config, model, base)
        _check_tokens(model, base, prepared)
        _check_lengths(model, base, prepared)
        _check_packing(context, model)
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
        base = resolve_model(config.model, context.resolved, context.stop.check, _access(context))
        check_exports(config, base)
        tokenizer = load_tokenizer(base.path, base.name)
        compares = FORMATS[request.format].compares
        rows = _prepare(context, base, tokenizer, *_fetch_rows(context)) if compares else None
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


def _access(context: RunContext) -> Access:
    shared = context.config.cache_directory
    cache = None if shared is None else Path(shared) / "downloads"
    return Access(s3=context.config.s3, cache=cache, progress=context.progress)


def _token_directory(context: RunContext) -> Path:
    """Return the directory of tokens for later starts, and with a shared cache for other runs."""
    shared = context.config.cache_directory
    return context.run_directory / CACHE if shared is None else Path(shared) / "tokens"


def _fetch_rows(context: RunContext) -> tuple[RowFile, RowFile | float | None]:
    dataset = context.config.dataset

    def fetch(source: str, sha256: str | None, max_rows: int | None) -> RowFile:
        file = resolve_file(source, context.resolved, context.stop.check, _access(context), sha256=sha256)
        return RowFile(path=file.path, name=file.name, format=dataset.format, max_rows=max_rows)

    train = fetch(dataset.source, dataset.sha256, dataset.max_rows)
    if dataset.validation is None:
        return train, None
    if dataset.validation.source is None:
        return train, dataset.validation.fraction
    return train, fetch(dataset.validation.source, dataset.validation.sha256, None)


def _prepare(
    context: RunContext, base: LocalModel, tokenizer: Any, train: RowFile, validation: RowFile | float | None
) -> Prepared:
    """Check and tokenise the rows."""
    request = _request(context.config, train, validation, _pad_token(tokenizer))
    encoder = Encoder(tokenizer, context.config.llm.train_on, base.name)
    cache = TokenCache(_token_directory(context), keeps=context.group.is_main_process)
    return prepare(request, encoder, cache=cache, poll=context.stop.check, log=context.log)


def _request(config: RunConfig, train: RowFile, validation: RowFile | float | None, pad_token: int) -> DataRequest:
    return DataRequest(
        train=train,
        validation=validation,
        overlong=config.llm.overlong,
        train_on=config.llm.train_on,
        batches=BatchSettings(
            batch_size=config.optimization.batch_size,
            max_length=config.llm.max_length,
            packing=config.llm.packing,
            pad_token=pad_token,
            seed=config.optimization.seed,
        ),
    )


def _pad_token(tokenizer: Any) -> int:
    """Return the padding token; any will do where the tokenizer has none, since padding carries no loss."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(token for token in candidates if token is not None))


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
    if config.adapter is not None:
        seed = config.optimization.seed
        model = add_adapter(model, config.adapter, seed=seed, base=base.reference, revision=base.revision)
    recompute_activations(model, recompute)
    model.train()
    return model


def _check_tokens(model: Any, base: LocalModel, prepared: Prepared) -> None:
    """Refuse tokens beyond the embedding, which would be an index error in a later step."""
    size = int(model.get_input_embeddings().num_embeddings)
    highest = max(part.highest_token for part in _all_batches(prepared))
    if highest >= size:
        raise ConfigurationError(
            f"The tokenizer of {base.name} writes token {highest}, but the model has embeddings for {size} tokens.",
            "Use the tokenizer the model was trained with.",
        )


def _check_lengths(model: Any, base: LocalModel, prepared: Prepared) -> None:
    """Refuse rows longer than the model's positions: those are untrained, or an index error in a later step."""
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max(part.longest_row for part in _all_batches(prepared))
    if limit is not None and longest > limit:
        raise ConfigurationError(
            f"The longest row has {longest} tokens, but {base.name} has positions for {limit} only.",
            f"Set spec.llm.maxLength to {limit} or less.",
        )


def _all_batches(prepared: Prepared) -> list[TextBatches]:
    return [prepared.train.batches, *([prepared.evaluation] if prepared.evaluation else [])]


def _check_packing(context: RunContext, model: Any) -> None:
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    if not context.config.llm.packing:
        return
    if not isolates_packed_rows(model, vocabulary, context.device):
        raise ConfigurationError(
            f"Rows packed into one sequence would see each other in this architecture ({model.config.model_type}).",
            "Set spec.llm.packing: false.",
        )
    enable_boundary_attention(model, vocabulary, context.device)


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
