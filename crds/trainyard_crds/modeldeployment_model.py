"""What a ModelDeployment serves: spec.model and spec.adapters."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from trainyard_crds.checkpoint_names import CHECKPOINT_FORMS, CHECKPOINT_PATTERN
from trainyard_crds.common import DnsName, Rule, SecretKey, SpecModel, rules
from trainyard_crds.exports import WholeModelFormat
from trainyard_crds.serving import BASE_NAME
from trainyard_crds.sources import model_source, no_secret

SERVED_NAME_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$"
"""Names that clients put into `model` of a request; no '/' and no '@', so that none is a path or a version."""

_CREDENTIALS = (
    "remove it; Secrets with a hub token and with keys of object storage are named in spec.model.credentialsSecret and "
    "spec.s3.credentialsSecret"
)


def _served_name(field: str) -> dict[str, Any]:
    message = f"{field} must begin and end with a letter or digit, with only letters, digits, '-', '_' and '.' between"
    return rules(Rule(f"self.matches(r'{SERVED_NAME_PATTERN}')", message))


def _exactly_one(block: str) -> Rule[Any]:
    return Rule(
        "has(self.source) != has(self.from)",
        f"{block} takes exactly one of source (hf://, pvc:// or s3://) and from (a TrainingJob)",
    )


def _hub_only(block: str, field: str) -> Rule[Any]:
    return Rule(
        f"!has(self.{field}) || (has(self.source) && self.source.startsWith('hf://'))",
        f"{block}.{field} is only used for hf:// sources; remove it",
    )


class RunReference(SpecModel):
    """A checkpoint of a TrainingJob."""

    training_job: DnsName = Field(
        description="Name of the TrainingJob, in this namespace. While it runs, the ModelDeployment waits for it."
    )
    checkpoint: str = Field(
        default="best",
        max_length=128,
        description=f"Checkpoint to serve: {CHECKPOINT_FORMS}. best is the last one where nothing was evaluated.",
        json_schema_extra=rules(
            Rule(f"self.matches(r'{CHECKPOINT_PATTERN}')", f"the checkpoint must be {CHECKPOINT_FORMS}")
        ),
    )


class ModelReference(RunReference):
    """A model that a TrainingJob made."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.export) || self.checkpoint == 'best'",
                "spec.model.from.checkpoint has no effect with export: exports are made of the best checkpoint; "
                "remove one of them",
            )
        )
    )

    export: WholeModelFormat | None = Field(
        default=None,
        description="Serve this export of the job, a whole model, instead of its checkpoint. Default: the checkpoint; "
        "for lora and qlora the base model with the adapter beside it.",
    )


class ServedModel(SpecModel):
    """The model that every replica loads."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _exactly_one("spec.model"),
            no_secret("spec.model.source", _CREDENTIALS),
            _hub_only("spec.model", "revision"),
            Rule(
                f"!has(self.servedName) || self.servedName != '{BASE_NAME}'",
                f"spec.model.servedName: {BASE_NAME} is the name of the base model below an adapter; use another name",
            ),
        )
    )

    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Location of the model: hf://org/name on the model hub, or a directory (config.json, tokenizer, "
        "safetensors weights): pvc://claim/path on a PersistentVolumeClaim of this namespace, s3://bucket/path in "
        "spec.s3.",
        json_schema_extra=model_source("spec.model.source"),
    )
    from_: ModelReference | None = Field(
        default=None,
        alias="from",
        description="A TrainingJob whose result is served. With lora and qlora its base model is loaded, and its "
        "adapter is served under `servedName`; the base model answers as `base`.",
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Branch, tag or commit of an hf:// model. Default: the main branch when a replica starts.",
    )
    credentials_secret: SecretKey | None = Field(
        default=None, description="Secret key with the hub token for gated or private hf:// models and adapters."
    )
    served_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        description="Name of the model in requests. Default: the name of the ModelDeployment.",
        json_schema_extra=_served_name("spec.model.servedName"),
    )


class ServedAdapter(SpecModel):
    """A LoRA adapter that is served beside the model; added, replaced and removed without a restart."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _exactly_one("spec.adapters[]"),
            no_secret("spec.adapters[].source", _CREDENTIALS),
            _hub_only("spec.adapters[]", "revision"),
            Rule(
                f"self.name != '{BASE_NAME}'",
                f"spec.adapters[].name: {BASE_NAME} is the name of the base model; use another name",
            ),
        )
    )

    name: str = Field(
        min_length=1,
        max_length=63,
        description="Name of the adapter in requests.",
        json_schema_extra=_served_name("spec.adapters[].name"),
    )
    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Directory of the adapter (adapter_config.json, adapter_model.safetensors): hf://org/name, "
        "pvc://claim/path on a claim that spec.model or spec.volumes name, s3://bucket/path in spec.s3.",
        json_schema_extra=model_source("spec.adapters[].source"),
    )
    from_: RunReference | None = Field(
        default=None, alias="from", description="A TrainingJob with method: lora or qlora whose adapter is served."
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Branch, tag or commit of an hf:// adapter. Default: the main branch when it is loaded.",
    )
