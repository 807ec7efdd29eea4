"""The status of a ModelDeployment."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from trainyard_crds.common import Condition, StatusModel, Timestamp
from trainyard_crds.constants import MAX_ADAPTERS
from trainyard_crds.queue import QueueStatus


class AdapterState(StrEnum):
    """State of an adapter; over all replicas the least advanced one."""

    PENDING = "Pending"
    LOADING = "Loading"
    LOADED = "Loaded"
    FAILED = "Failed"


class ServedModelStatus(StatusModel):
    """The model that is served."""

    source: str = Field(max_length=1024, description="Where it is loaded from: of a run, pvc://claim/path.")
    revision: str | None = Field(default=None, max_length=128, description="Revision of an hf:// model.")
    digest: str | None = Field(
        default=None, max_length=128, description="`sha256:` digest of the checkpoint or export of a run."
    )
    training_job: str | None = Field(default=None, max_length=253, description="TrainingJob that made it.")
    checkpoint: str | None = Field(default=None, max_length=128, description="Name of the checkpoint.")


class AdapterStatus(StatusModel):
    """One adapter."""

    name: str = Field(max_length=63, description="Name of the adapter in requests.")
    source: str | None = Field(default=None, max_length=1024, description="Where it is loaded from.")
    checkpoint: str | None = Field(default=None, max_length=128, description="Name of the checkpoint of a run.")
    digest: str | None = Field(
        default=None, max_length=128, description="`sha256:` digest of what is served under the name."
    )
    state: AdapterState = Field(description="State over all replicas.")
    ready_replicas: int = Field(default=0, ge=0, description="Replicas that serve this digest of it.")
    reason: str | None = Field(default=None, max_length=64, description="CamelCase reason why it is not loaded.")
    message: str | None = Field(default=None, max_length=1024, description="Cause and remedy, in a sentence.")


class Address(StatusModel):
    """A URL of the endpoint."""

    name: str = Field(max_length=63, description="cluster, route or nodePort.")
    url: str = Field(max_length=512, description="URL below which /v1/chat/completions is.")


class LastFailure(StatusModel):
    """The last failure of a replica."""

    reason: str = Field(max_length=64, description="CamelCase reason.")
    message: str = Field(max_length=2048, description="Cause and remedy, with the engine's own last lines.")
    pod: str | None = Field(default=None, max_length=253, description="Name of the pod.")
    time: Timestamp = Field(description="When it was observed.")


class EngineStatus(StatusModel):
    """Settings of the engine that stay while replicas run."""

    runtime: str = Field(max_length=32, description="Engine: vllm.")
    max_adapter_rank: int | None = Field(
        default=None, description="Largest rank of an adapter that the engine accepts without a restart."
    )


class ModelDeploymentStatus(StatusModel):
    """Observed state of the endpoint."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that this status was computed from."
    )
    message: str | None = Field(
        default=None, max_length=2048, description="Current activity or failure, in a sentence."
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Conditions: Ready, Reconciling, Stalled, RuntimeReady, AdaptersReady, ScaledToZero, Stopped, "
        "RouteReady.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    url: str | None = Field(default=None, max_length=512, description="URL of the endpoint inside the cluster.")
    addresses: list[Address] = Field(
        default=[],
        max_length=16,
        description="All URLs of the endpoint.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    served_model_name: str | None = Field(default=None, max_length=63, description="Name of the model in requests.")
    model: ServedModelStatus | None = Field(default=None, description="The model that is served.")
    version: str | None = Field(default=None, max_length=63, description="spec.version of the replicas.")
    replicas: int | None = Field(default=None, ge=0, description="Replicas that exist.")
    ready_replicas: int | None = Field(default=None, ge=0, description="Replicas that answer requests.")
    updated_replicas: int | None = Field(default=None, ge=0, description="Replicas of the current model and engine.")
    selector: str | None = Field(default=None, max_length=512, description="Label selector of the replicas' pods.")
    engine: EngineStatus | None = Field(default=None, description="Settings of the engine.")
    adapters: list[AdapterStatus] = Field(
        default=[],
        max_length=MAX_ADAPTERS,
        description="State of each adapter.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    queue: QueueStatus | None = Field(default=None, description="State in the queue, for replicas with GPUs.")
    last_failure: LastFailure | None = Field(default=None, description="The last failure of a replica.")
    summary: ServingSummary | None = Field(default=None, description="Texts of the printer columns of kubectl get.")


class ServingSummary(StatusModel):
    """Texts of the printer columns."""

    replicas: str | None = Field(default=None, max_length=32, description="Ready and wanted replicas, for example 1/2.")
    adapters: str | None = Field(
        default=None, max_length=32, description="Loaded and wanted adapters, for example 2/3."
    )
    model: str | None = Field(default=None, max_length=512, description="Source or TrainingJob of the model.")
