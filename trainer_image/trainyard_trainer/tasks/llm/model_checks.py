"""Checks of a loaded model against its rows, before the first step."""

from __future__ import annotations

from typing import Any

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.batches import TextBatches
from trainyard_trainer.tasks.text.causality import is_causal
from trainyard_trainer.tasks.text.export.stored_weights import is_quantized
from trainyard_trainer.tasks.text.models.quantization import computing_fault, count_quantized
from trainyard_trainer.tasks.text.packing_isolation import enable_boundary_attention, isolates_packed_rows
from trainyard_trainer.tasks.text.prepare import Prepared


def check_method(config: RunConfig, base: LocalModel) -> None:
    """Refuse full training of quantised weights: only what is not quantised would change, and nothing could be saved.

    Raises:
        ConfigurationError: The base model's weights are stored quantised.
    """
    if config.method == "full" and is_quantized(base.path):
        raise ConfigurationError(
            f"The weights of {base.name} are stored quantised and cannot be trained with method: full.",
            "Use method: lora, or train on the model it was quantised from.",
        )


def check_tokens(model: Any, base: LocalModel, prepared: Prepared) -> None:
    """Refuse tokens beyond the embedding, which would be an index error in a later step."""
    size = int(model.get_input_embeddings().num_embeddings)
    highest = max(part.highest_token for part in _all_batches(prepared))
    if highest >= size:
        raise ConfigurationError(
            f"The tokenizer of {base.name} writes token {highest}, but the model has embeddings for {size} tokens.",
            "Use the tokenizer the model was trained with.",
        )


def check_causal(context: RunContext, model: Any, base: LocalModel) -> None:
    """Refuse models that read the tokens they are to predict: their loss falls to nothing, and they learn nothing.

    Raises:
        ConfigurationError: It is one.
    """
    if not is_causal(model, int(model.get_input_embeddings().num_embeddings), context.device):
        raise ConfigurationError(
            f"{base.name} is no causal language model ({model.config.model_type}): its predictions depend on the tokens"
            " that follow, so the loss would be that of copying.",
            "Use a model that predicts each token from the ones before it; encoders such as BERT do not.",
        )


def check_lengths(model: Any, base: LocalModel, prepared: Prepared) -> None:
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


def check_packing(context: RunContext, model: Any) -> None:
    """Refuse packing where rows attend to each other; else let attention use position boundaries."""
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    if not context.config.llm.packing:
        return
    if not isolates_packed_rows(model, vocabulary, context.device):
        raise ConfigurationError(
            f"Rows packed into one sequence would see each other in this architecture ({model.config.model_type}).",
            "Set spec.llm.packing: false.",
        )
    enable_boundary_attention(model, vocabulary, context.device)


_NEGLIGIBLE = 0.05
"""Share of the matrices that may stay in 16 bits without a warning: routers, for example."""


def check_quantized(context: RunContext, model: Any, base: LocalModel) -> None:
    """Refuse qlora where nothing of the model is in 4 bits or it cannot compute so; warn where much is not."""
    found = count_quantized(model)
    if found.values == 0:
        raise ConfigurationError(
            f"No matrix of {base.name} can be stored in 4 bits: its layers ({model.config.model_type}) are not plain"
            " linear layers.",
            "Use method: lora.",
        )
    if (fault := computing_fault(model)) is not None:
        raise ConfigurationError(
            f"{base.name} ({model.config.model_type}) cannot compute with weights in 4 bits: {fault}",
            "Use method: lora.",
        )
    if found.rest > _NEGLIGIBLE * (found.rest + found.values):
        share = found.rest / (found.rest + found.values)
        context.log(
            "PartlyQuantized",
            f"{share:.0%} of the matrices of {base.name} stay in {context.config.optimization.precision}"
            f" ({found.rest_bytes / 2**30:.1f} GiB), for example {found.example}: only plain linear layers are stored"
            " in 4 bits, and experts of a mixture are not. The memory plan counts them so.",
        )
