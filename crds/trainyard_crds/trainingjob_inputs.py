"""The inputs of a TrainingJob: spec.model and spec.dataset."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import ConfigDict, Field

from trainyard_crds.common import Rule, SecretKey, SpecModel, rules
from trainyard_crds.sources import Sha256, dataset_source, model_source, no_secret, sha256_of_downloads


class Model(SpecModel):
    """The base model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            no_secret(
                "spec.model.source",
                "write hf://org/name and name a Secret with the hub token in spec.model.credentialsSecret",
            ),
            Rule(
                "!has(self.credentialsSecret) || self.source.startsWith('hf://')",
                "spec.model.credentialsSecret is only used for hf:// sources; remove it",
            ),
            Rule(
                "!has(self.revision) || self.source.startsWith('hf://')",
                "spec.model.revision is only used for hf:// sources; remove it",
            ),
        )
    )

    source: str = Field(
        min_length=1,
        max_length=512,
        description=(
            "Location of the model: hf://org/name on the model hub, or a directory (config.json, tokenizer, "
            "safetensors "
            "weights): pvc://claim/path on a PersistentVolumeClaim of this namespace, s3://bucket/path in spec.s3."
        ),
        json_schema_extra=model_source("spec.model.source"),
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Branch, tag or commit of an hf:// model. Default: the main branch. The status shows the commit.",
    )
    credentials_secret: SecretKey | None = Field(
        default=None, description="Secret key with the hub token for a gated or private hf:// model."
    )


_ROWS = "write pvc://claim/file.jsonl, hf://org/name/file.jsonl or s3://bucket/file.jsonl; secrets go into a Secret"
DatasetFormat = Literal["auto", "messages", "sharegpt", "alpaca", "query-response", "text", "tokenized"]
OnInvalidRow = Literal["fail", "skip"]
DEFAULT_INVALID_FRACTION = 0.05


class HeldOutRows(Protocol):
    """The fields of held-out rows that the shared rules read."""

    @property
    def source(self) -> str | None:
        """A file of rows."""

    @property
    def fraction(self) -> float | None:
        """A share of the training rows."""


class TrainingRows(Protocol):
    """The fields of training rows that the shared rules read."""

    @property
    def source(self) -> str:
        """The training file."""

    @property
    def on_invalid_row(self) -> str:
        """What an invalid row does: fail, skip."""

    @property
    def max_invalid_fraction(self) -> float | None:
        """Largest share of invalid rows."""

    @property
    def validation(self) -> HeldOutRows | None:
        """Held-out rows."""


VALIDATION_RULES: tuple[Rule[HeldOutRows], ...] = (
    Rule(
        "has(self.source) != has(self.fraction)",
        "spec.dataset.validation takes exactly one of source (a file) and fraction (a share of the rows)",
        holds=lambda rows: (rows.source is None) != (rows.fraction is None),
    ),
)
DATASET_RULES: tuple[Rule[TrainingRows], ...] = (
    Rule(
        "!has(self.validation) || !has(self.validation.source) || self.validation.source != self.source",
        "spec.dataset.validation.source is the training file itself, so its evaluation is meaningless; "
        "name another file, or use fraction",
        holds=lambda rows: rows.validation is None or rows.validation.source != rows.source,
    ),
    Rule(
        "!has(self.maxInvalidFraction) || self.onInvalidRow == 'skip'",
        "spec.dataset.maxInvalidFraction has no effect without onInvalidRow: skip; remove it, or skip invalid rows",
        holds=lambda rows: rows.max_invalid_fraction is None or rows.on_invalid_row == "skip",
    ),
)


class Validation(SpecModel):
    """Held-out rows for evaluation."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            no_secret("spec.dataset.validation.source", _ROWS),
            sha256_of_downloads("spec.dataset.validation"),
            *VALIDATION_RULES,
        )
    )

    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="File of held-out rows, in the forms of spec.dataset.source and the format of the dataset.",
        json_schema_extra=dataset_source("spec.dataset.validation.source"),
    )
    sha256: str | None = Sha256
    fraction: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="Share of the training rows to hold out, selected by a hash of the row; greater than 0, at "
        "most 0.5.",
    )


class Dataset(SpecModel):
    """The training rows."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            no_secret("spec.dataset.source", _ROWS),
            sha256_of_downloads("spec.dataset"),
            *DATASET_RULES,
        )
    )

    source: str = Field(
        min_length=1,
        max_length=512,
        description=(
            "A file of rows (JSON Lines, JSON array, CSV, Parquet, or a .zip, .tar, .tar.gz or .gz of them): "
            "pvc://claim/path, hf://org/name/path in a dataset repository of the hub, s3://bucket/key in spec.s3, or "
            "https://host/path."
        ),
        json_schema_extra=dataset_source("spec.dataset.source"),
    )
    sha256: str | None = Sha256
    format: DatasetFormat = Field(
        default="auto",
        description=(
            "Format of the rows: messages (role, content), sharegpt (conversations of from, value), alpaca "
            "(instruction, input, output), query-response, text, tokenized (input_ids, labels). auto detects it "
            "from the first rows."
        ),
    )
    max_rows: int | None = Field(
        default=None, ge=1, description="Maximum number of rows, from the start of the file. Default: all."
    )
    on_invalid_row: OnInvalidRow = Field(
        default="fail",
        description=(
            "Effect of an invalid row among the training rows or in a file of held-out rows: fail ends the run with "
            "exit code 65; skip leaves the row out and counts it in status.invalidRows. A file that cannot be read to "
            "its end always ends the run."
        ),
    )
    max_invalid_fraction: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description=(
            "With onInvalidRow: skip, the largest share of invalid rows in a file; more end the run with exit code 65. "
            f"Greater than 0, at most 0.5. Default: {DEFAULT_INVALID_FRACTION}."
        ),
    )
    validation: Validation | None = Field(default=None, description="Held-out rows. Default: none, and no evaluation.")
