"""Exports of a finished run."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import Rule, SpecModel, rules
from trainyard_crds.sources import no_secret, s3_destination
from trainyard_crds.tasks import TaskName

ExportFormat = Literal["adapter", "model", "merged", "gguf"]
WholeModelFormat = Literal["model", "merged"]
"""Formats that are served as a whole model."""
ExportBase = Literal["original", "dequantized"]
FORMATS: dict[TaskName, tuple[ExportFormat, ...]] = {"llm": ("adapter", "model", "merged", "gguf")}
"""Formats that each task writes."""
ADAPTER_FORMATS: tuple[ExportFormat, ...] = ("adapter", "merged")
"""Formats that need an adapter."""
FULL_FORMATS: tuple[ExportFormat, ...] = ("model",)
"""Formats of method: full only."""
GgufType = Literal["bf16", "f16", "f32", "q8_0"]


class Export(SpecModel):
    """One export, written after training."""

    RULES: ClassVar[tuple[Rule[Export], ...]] = (
        no_secret(
            "spec.exports[].destination",
            "write s3://bucket/folder and name a Secret in spec.s3.credentialsSecret",
            "destination",
        ),
        Rule(
            "!has(self.base) || self.format in ['merged', 'gguf']",
            "spec.exports[].base has no effect on this format; remove it, or use format: merged or gguf",
            holds=lambda export: export.base is None or export.format in ("merged", "gguf"),
        ),
        Rule(
            "!has(self.type) || self.format == 'gguf'",
            "spec.exports[].type has no effect on this format; remove it, or use format: gguf",
            holds=lambda export: export.type is None or export.format == "gguf",
        ),
    )
    model_config = ConfigDict(json_schema_extra=rules(*RULES))

    format: ExportFormat = Field(
        description=(
            "adapter (PEFT directory; lora, qlora), model (transformers directory; full), merged (the adapter merged "
            "into its base model, a transformers directory; lora, qlora), gguf (one file for llama.cpp)."
        )
    )
    base: ExportBase | None = Field(
        default=None,
        description=(
            "Model that a qlora adapter is merged into: original, the downloaded base model, or dequantized, the 4-bit "
            "model it was trained on. The difference to the trained model is measured in both cases. Default: original."
        ),
    )
    type: GgufType | None = Field(
        default=None, description="Data type of the matrices in a gguf file; vectors are always f32. Default: bf16."
    )
    destination: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Folder that the export is also copied to: s3://bucket/folder. Default: the run's volume only.",
        json_schema_extra=s3_destination("spec.exports[].destination"),
    )
