"""TrainingJob: one fine-tuning run."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from trainyard_crds.common import Column, CustomResource, Kind, Rule, SpecModel, rules
from trainyard_crds.constants import NAME_LIMIT
from trainyard_crds.exports import Export, ExportFormat
from trainyard_crds.pod_options import PodOptions
from trainyard_crds.queue import Queue
from trainyard_crds.sources import S3
from trainyard_crds.tasks import TaskName
from trainyard_crds.trainingjob_inputs import Dataset, Model
from trainyard_crds.trainingjob_resources import DEFAULT_CLAIM_SIZE, Resources, Storage
from trainyard_crds.trainingjob_resume import ResumeFrom
from trainyard_crds.trainingjob_rules import SPEC_RULES
from trainyard_crds.trainingjob_status import TrainingJobStatus
from trainyard_crds.trainingjob_training import (
    DEFAULT_METHOD,
    Adapter,
    Checkpoints,
    Evaluation,
    Llm,
    Method,
    Optimization,
    Quantization,
)


class Retry(SpecModel):
    """Restarts after infrastructure faults."""

    limit: int = Field(
        default=3,
        ge=0,
        le=20,
        description="Restarts after a crash or an unreachable source. Preemptions and evictions are not counted.",
    )


class Stop(StrEnum):
    """How a job is stopped permanently."""

    GRACEFUL = "Graceful"
    FORCE = "Force"


class TrainingJobSpec(SpecModel):
    """Desired training run."""

    model_config = ConfigDict(json_schema_extra=rules(*SPEC_RULES))

    task: TaskName = Field(description="Kind of model that is trained: llm, a causal language model.")
    method: Method = Field(
        default=DEFAULT_METHOD,
        description="lora trains an adapter, qlora an adapter on a 4-bit base model, full all weights.",
    )
    model: Model = Field(description="The base model.")
    dataset: Dataset = Field(description="The training rows.")
    resume_from: ResumeFrom | None = Field(
        default=None, description="Begin at a checkpoint of another run. Default: train from the base model."
    )
    optimization: Optimization | None = Field(
        default=None, description="Optimizer and schedule. Default: its defaults."
    )
    adapter: Adapter | None = Field(default=None, description="LoRA settings (lora, qlora). Default: its defaults.")
    quantization: Quantization | None = Field(
        default=None, description="4-bit settings (qlora). Default: its defaults."
    )
    llm: Llm | None = Field(default=None, description="Settings of language models. Default: its defaults.")
    evaluation: Evaluation | None = Field(default=None, description="When to evaluate. Default: its defaults.")
    checkpoints: Checkpoints | None = Field(default=None, description="When to save. Default: its defaults.")
    exports: list[Export] | None = Field(
        default=None,
        min_length=1,
        max_length=len(get_args(ExportFormat)),
        description=(
            "Exports of the finished run, each format once. Entries may be added later, also after the run: a separate "
            "CPU Job writes each of them. Default: adapter, or model with method: full."
        ),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["format"]},
    )
    s3: S3 | None = Field(
        default=None,
        description="Object storage of s3:// sources and destinations; may be added later, but not changed.",
    )
    resources: Resources | None = Field(default=None, description="GPUs, CPU and memory. Default: its defaults.")
    pod: PodOptions | None = Field(
        default=None,
        description="Options of the pods: labels, image, ServiceAccount, environment and others. Default: those of the "
        "chart.",
    )
    storage: Storage | None = Field(
        default=None, description=f"Volume of the run. Default: a claim of {DEFAULT_CLAIM_SIZE}, retained."
    )
    queue: Queue | None = Field(default=None, description="Queue settings. Default: its defaults.")
    suspend: bool = Field(
        default=False, description="true: save a checkpoint, stop and free the GPUs. false: resume from the checkpoint."
    )
    stop: Stop | None = Field(
        default=None,
        description="Stops the job permanently: Graceful saves a checkpoint first, Force does not. Graceful may "
        "become Force.",
    )
    retry: Retry | None = Field(
        default=None, description="Restarts after infrastructure faults. Default: its defaults."
    )
    start_deadline_seconds: int = Field(
        default=1800,
        ge=1,
        le=31_536_000,
        description="Seconds from admission until the container runs, after which the job fails with the cause. "
        "The Job of an "
        "export that was added later has the same limit.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Seconds of running time, without queued and suspended time, after which the job fails. "
        "Default: none.",
    )


class TrainingJob(CustomResource):
    """A fine-tuning run: queued, run as a Job, with its progress in the status."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"self.metadata.name.size() <= {NAME_LIMIT}",
                f"metadata.name may have at most {NAME_LIMIT} characters: the names of the Job and its pods are "
                "derived from it",
            ),
            Rule(
                "!has(self.spec.resources) || self.spec.resources.nodes < 2 || !self.metadata.name.contains('.')",
                "metadata.name may not have a '.' with spec.resources.nodes above 1: the pods' host names are "
                "derived from it; use '-' instead",
            ),
            Rule(
                "!has(self.spec.resumeFrom) || !has(self.spec.resumeFrom.trainingJob) || "
                "self.spec.resumeFrom.trainingJob != self.metadata.name",
                "spec.resumeFrom.trainingJob names this TrainingJob itself; name another one, or resume from its "
                "former run with spec.resumeFrom.runUri",
            ),
        )
    )
    kind_info: ClassVar[Kind] = Kind(
        kind="TrainingJob",
        plural="trainingjobs",
        short_names=("tj",),
        mutable=("suspend", "stop", "queue", "exports", "s3"),
        columns=(
            Column(name="Phase", path=".status.phase"),
            Column(name="Progress", path=".status.summary.progress"),
            Column(name="Step", path=".status.summary.step"),
            Column(name="Loss", path=".status.summary.loss"),
            Column(name="ETA", path=".status.summary.eta"),
            Column(name="GPUs", path=".status.summary.gpus"),
            Column(name="Age", path=".metadata.creationTimestamp", type="date"),
            Column(name="Task", path=".spec.task", wide=True),
            Column(name="Method", path=".spec.method", wide=True),
            Column(name="Model", path=".spec.model.source", wide=True),
            Column(name="Queue", path=".status.summary.queue", wide=True),
            Column(name="Message", path=".status.message", wide=True),
        ),
    )

    api_version: Literal["trainyard.dev/v1alpha1"] = "trainyard.dev/v1alpha1"
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: dict[str, Any]
    spec: TrainingJobSpec = Field(description="Desired training run.")
    status: TrainingJobStatus | None = Field(
        default=None, description="Observed state of the run, written by Trainyard."
    )
