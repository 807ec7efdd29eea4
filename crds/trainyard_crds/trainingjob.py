"""TrainingJob: one fine-tuning run."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import Column, Kind, Rule, SpecModel, rules
from trainyard_crds.constants import NAME_LIMIT
from trainyard_crds.exports import Export
from trainyard_crds.queue import Queue
from trainyard_crds.sources import S3
from trainyard_crds.tasks import TaskName
from trainyard_crds.trainingjob_inputs import Dataset, Model
from trainyard_crds.trainingjob_resources import Resources, Storage
from trainyard_crds.trainingjob_rules import SPEC_RULES
from trainyard_crds.trainingjob_status import TrainingJobStatus
from trainyard_crds.trainingjob_training import Adapter, Checkpoints, Evaluation, Llm, Optimization, Quantization


class Retry(SpecModel):
    """What happens after a fault of the machine."""

    limit: int = Field(
        default=3,
        ge=0,
        le=20,
        description="Restarts after a crash or an unreachable source. Preemptions and evictions are free.",
    )


class Stop(StrEnum):
    """How a job is ended for good."""

    GRACEFUL = "Graceful"
    FORCE = "Force"


class TrainingJobSpec(SpecModel):
    """What the user asks for."""

    model_config = ConfigDict(json_schema_extra=rules(*SPEC_RULES))

    task: TaskName = Field(description="What kind of model is trained: llm, a causal language model.")
    method: Literal["lora", "qlora", "full"] = Field(
        default="lora",
        description="lora trains an adapter, qlora an adapter on a 4-bit base model, full every weight.",
    )
    model: Model = Field(description="The base model.")
    dataset: Dataset = Field(description="The training rows.")
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
        max_length=4,
        description=(
            "What the finished run leaves, each format once. Entries may be added later, also after the end: each is "
            "then made by a Job of its own on the CPU. Default: the adapter, or the model with full."
        ),
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["format"]},
    )
    s3: S3 | None = Field(
        default=None, description="Object storage of s3:// sources and destinations; may be added later, once."
    )
    resources: Resources | None = Field(default=None, description="GPUs, CPU and memory. Default: its defaults.")
    storage: Storage | None = Field(default=None, description="Volume of the run. Default: a claim of 10Gi, retained.")
    queue: Queue | None = Field(default=None, description="Place among waiting jobs. Default: its defaults.")
    suspend: bool = Field(
        default=False, description="true: save, stop and free the GPUs. false again: resume where it was."
    )
    stop: Stop | None = Field(
        default=None,
        description="Ends the job for good: Graceful saves first, Force does not wait. Graceful may become Force.",
    )
    retry: Retry | None = Field(
        default=None, description="Restarts after faults of the machine. Default: its defaults."
    )
    start_deadline_seconds: int = Field(
        default=1800,
        ge=1,
        le=31_536_000,
        description="Seconds a started job may take until its container runs; then it fails with what prevented it. An "
        "export that was asked for later has as many for the container of its Job.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Seconds of running time (suspended time not counted) after which the job fails. Default: none.",
    )


class TrainingJob(SpecModel):
    """A fine-tuning run: queued, run as a Job, followed to its end."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"self.metadata.name.size() <= {NAME_LIMIT}",
                f"metadata.name may have at most {NAME_LIMIT} characters: the Job's and pods' names are made from it",
            ),
            Rule(
                "!has(self.spec.resources) || self.spec.resources.nodes < 2 || !self.metadata.name.contains('.')",
                "metadata.name may not have a '.' with spec.resources.nodes above 1: the pods' host names are made "
                "from it; write '-' instead",
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
    spec: TrainingJobSpec = Field(description="What to train, on what, how.")
    status: TrainingJobStatus | None = Field(
        default=None, description="What is known about the run; written by the system."
    )
