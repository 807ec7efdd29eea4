"""Loading of causal language models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from trainyard_crds.trainingjob_training import Quantization
from trainyard_trainer.errors import ConfigurationError, GpuMemoryError, NotFoundError, first_line
from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries
from trainyard_trainer.tasks.text.models.quantization import disable_weight_repacking, quantization_config

_NO_SDPA = "does not support an attention implementation through torch.nn.functional.scaled_dot_product_attention"
"""In the refusal of transformers."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def load_base_model(
    directory: Path,
    name: str,
    *,
    precision: Literal["bf16", "fp32"],
    device: torch.device,
    quantization: Quantization | None = None,
) -> Any:
    """Load a causal language model, its weights as stored or quantised.

    Attention is SDPA's, or eager where the architecture has no other (soft caps of logits, attention sinks).

    Args:
        directory: Its files.
        name: Its name in messages.
        precision: Type of weights and activations; of activations only where weights are quantised.
        device: The device to load it on.
        quantization: How to store its weights in 4 bits; None keeps them as stored.

    Raises:
        ConfigurationError: It is no causal language model of a known architecture.
        GpuMemoryError: It does not fit on the device.
        NotFoundError: Weights are missing or unreadable.
    """
    quiet_libraries()
    options: dict[str, Any] = {"dtype": DTYPES[precision], "device_map": {"": device}}
    if quantization is not None:
        options["quantization_config"] = quantization_config(quantization, DTYPES[precision])
    with _translated(name, quantized=quantization is not None):
        model, report = _from_pretrained(directory, options)
    _check_complete(name, report)
    if quantization is not None:
        disable_weight_repacking(model)
    return model


def _from_pretrained(directory: Path, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    always = {"local_files_only": True, "trust_remote_code": False, "output_loading_info": True, **options}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(str(directory), attn_implementation="sdpa", **always)
    except ValueError as error:
        # Raised before any weight is read.
        if _NO_SDPA not in str(error):
            raise
        loaded = AutoModelForCausalLM.from_pretrained(str(directory), attn_implementation="eager", **always)
    model, report = loaded
    return model, report


@contextmanager
def _translated(name: str, *, quantized: bool) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        smaller = "a smaller model" if quantized else "method: qlora, a smaller model"
        raise GpuMemoryError(
            f"The model {name} does not fit into the GPU's memory.", f"Use {smaller} or a larger GPU."
        ) from error
    except (SafetensorError, OSError) as error:
        raise NotFoundError(
            f"The weights of {name} cannot be read: {first_line(error)}", "Copy the complete model again."
        ) from error
    except (ValueError, KeyError, TypeError, ImportError, StrictDataclassError) as error:
        raise ConfigurationError(
            f"{name} cannot be loaded as a causal language model: {first_line(error)}",
            "Use a causal language model whose architecture transformers knows; code from a model is never run.",
        ) from error
    except RuntimeError as error:
        raise NotFoundError(
            f"The weights of {name} do not fit its config.json: {first_line(error)}", "Copy the complete model again."
        ) from error


def _check_complete(name: str, report: dict[str, Any]) -> None:
    """Refuse incomplete weights: transformers would initialise missing ones at random."""
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise NotFoundError(
            f"The weights of {name} are incomplete: {len(missing)} tensors are missing, for example {missing[0]}.",
            "Copy every *.safetensors file of the model.",
        )
