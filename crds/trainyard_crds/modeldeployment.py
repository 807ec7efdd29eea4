"""ModelDeployment: an OpenAI-compatible endpoint for a model and any number of adapters."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import Column, CustomResource, Kind, Rule, Scale, SpecModel, rules
from trainyard_crds.constants import MAX_ADAPTERS
from trainyard_crds.modeldeployment_model import ServedAdapter, ServedModel
from trainyard_crds.modeldeployment_rules import NAME_RULES, SPEC_RULES
from trainyard_crds.modeldeployment_serving import (
    DEFAULT_DRAIN_SECONDS,
    DEFAULT_PORT,
    ENGINE_FLAGS,
    CacheVolume,
    EngineFlag,
    Rollout,
    Route,
    Runtime,
    ScaleToZero,
    ServiceType,
    ServingResources,
    ServingVolume,
)
from trainyard_crds.modeldeployment_status import ModelDeploymentStatus
from trainyard_crds.pod_options import PodOptions
from trainyard_crds.queue import Queue
from trainyard_crds.sources import S3


class ModelDeploymentSpec(SpecModel):
    """Desired endpoint."""

    model_config = ConfigDict(json_schema_extra=rules(*SPEC_RULES))

    model: ServedModel = Field(description="The model that every replica loads.")
    adapters: list[ServedAdapter] | None = Field(
        default=None,
        max_length=MAX_ADAPTERS,
        description="LoRA adapters served beside the model, each under its name. A change restarts no replica.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    max_adapter_rank: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Largest rank of adapters that can be added without a restart; a larger one takes more memory. "
        "Default: the largest rank of the adapters at the start, at least 16.",
    )
    runtime: Runtime = Field(default="auto", description="Engine: vllm serves language models; auto chooses it.")
    version: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        description="Version of what is served, for people: shown in the status and put on the pods as label "
        "trainyard.dev/version. A change of it alone restarts no replica. Default: none.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?$')",
                "spec.version must be a label value: letters, digits, '-', '_' and '.', for example v1.2.0",
            )
        ),
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="Replicas. `kubectl scale`, an autoscaler and the activator of spec.scaleToZero change it.",
    )
    scale_to_zero: ScaleToZero | None = Field(
        default=None, description="Stop all replicas while nothing is asked. Default: they keep running."
    )
    resources: ServingResources | None = Field(
        default=None, description="GPUs, CPU and memory of each replica. Default: its defaults."
    )
    queue: Queue | None = Field(
        default=None, description="Queue settings of replicas with GPUs. Default: its defaults."
    )
    args: list[EngineFlag] | None = Field(
        default=None,
        max_length=32,
        description="Further flags of vLLM, each as --name=value or --name: "
        + ", ".join(ENGINE_FLAGS)
        + ". Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535, description="Port of the Service.")
    service_type: ServiceType = Field(default="ClusterIP", description="Type of the Service.")
    route: Route | None = Field(default=None, description="An HTTPRoute to the Service. Default: none.")
    rollout: Rollout | None = Field(default=None, description="How replicas are replaced. Default: its defaults.")
    s3: S3 | None = Field(default=None, description="Object storage of s3:// sources.")
    cache: CacheVolume | None = Field(
        default=None, description="A volume with downloads that replicas share. Default: each replica downloads."
    )
    volumes: list[ServingVolume] | None = Field(
        default=None,
        max_length=8,
        description="Claims for pvc:// sources of adapters. A change replaces the replicas. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["claimName"]},
    )
    pod: PodOptions | None = Field(
        default=None, description="Options of the pods; image replaces the engine's. Default: those of the chart."
    )
    start_timeout_seconds: int = Field(
        default=1800,
        ge=30,
        le=86_400,
        description="Seconds that the engine may take to load the fetched model before its container is restarted.",
    )
    drain_seconds: int = Field(
        default=DEFAULT_DRAIN_SECONDS,
        ge=0,
        le=3600,
        description="Seconds that requests in flight have to finish when a replica is stopped.",
    )
    stopped: bool = Field(default=False, description="true: no replicas, spec.replicas unchanged. false: serve.")


class ModelDeployment(CustomResource):
    """An OpenAI-compatible endpoint: a model with adapters, served by vLLM."""

    model_config = ConfigDict(
        json_schema_extra=rules(*NAME_RULES),
    )
    kind_info: ClassVar[Kind] = Kind(
        kind="ModelDeployment",
        plural="modeldeployments",
        short_names=("md",),
        is_mutable=True,
        scale=Scale(),
        columns=(
            Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status'),
            Column(name="Replicas", path=".status.summary.replicas"),
            Column(name="URL", path=".status.url"),
            Column(name="Adapters", path=".status.summary.adapters"),
            Column(name="Version", path=".status.version"),
            Column(name="Age", path=".metadata.creationTimestamp", type="date"),
            Column(name="Model", path=".status.summary.model", wide=True),
            Column(name="Runtime", path=".status.engine.runtime", wide=True),
            Column(name="Message", path=".status.message", wide=True),
        ),
    )

    api_version: Literal["trainyard.dev/v1alpha1"] = "trainyard.dev/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: dict[str, Any]
    spec: ModelDeploymentSpec = Field(description="Desired endpoint.")
    status: ModelDeploymentStatus | None = Field(
        default=None, description="Observed state of the endpoint, written by Trainyard."
    )
