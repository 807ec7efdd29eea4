"""What the trainer tells the world: progress reports while it runs, the termination message when it ends."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from trainyard_crds.common import StatusModel, Timestamp
from trainyard_crds.constants import TERMINATION_LIMIT

MetricValue = Annotated[float, Field(allow_inf_nan=False)]
Metrics = Annotated[dict[str, MetricValue], Field(max_length=64)]
"""Metric name (camelCase) -> latest finite value."""


class Stage(StrEnum):
    """What a run is doing right now."""

    STARTING = "Starting"
    DOWNLOADING = "Downloading"
    LOADING_MODEL = "LoadingModel"
    PREPARING_DATA = "PreparingData"
    EVALUATING = "Evaluating"
    TRAINING = "Training"
    SAVING = "Saving"
    EXPORTING = "Exporting"
    FINISHED = "Finished"


class Progress(StatusModel):
    """How far a run is."""

    stage: Stage = Field(default=Stage.STARTING, description="What the run is doing right now.")
    step: int = Field(default=0, ge=0, description="Optimizer steps done.")
    total_steps: int | None = Field(default=None, ge=0, description="Optimizer steps of the whole run.")
    epoch: float | None = Field(default=None, ge=0, description="Passes over the training data done.")
    percent: float | None = Field(default=None, ge=0, le=100, description="Share of the steps done, 0 to 100.")
    stage_percent: float | None = Field(
        default=None, ge=0, le=100, description="Share of the current stage done, where it says so: a download, a copy."
    )
    remaining_seconds: int | None = Field(default=None, ge=0, description="Estimated seconds until the end.")
    steps_per_second: float | None = Field(default=None, ge=0, description="Optimizer steps per second, recent.")
    tokens_per_second: float | None = Field(
        default=None, ge=0, description="Real (not padded) tokens per second, recent."
    )
    updated_at: Timestamp | None = Field(default=None, description="When the trainer wrote this.")


MOST_GPUS = 64
"""GPUs a report tells of; of a larger run, those of the first pods."""


class Gpu(StatusModel):
    """One GPU of the run, as NVML sees it."""

    name: str = Field(max_length=128, description="Product name.")
    memory_used: int = Field(ge=0, description="Bytes in use by all processes.")
    memory_total: int = Field(ge=0, description="Bytes the device has.")
    utilization: int = Field(ge=0, le=100, description="Percent of time a kernel was running in the last sample.")
    pod: int | None = Field(default=None, ge=0, description="Index of its pod, in a run on several nodes.")


class CheckpointStatus(StatusModel):
    """One verified checkpoint."""

    name: str = Field(max_length=128, description="Directory name under checkpoints/, `step-<N>-e<epoch>`.")
    step: int = Field(ge=0, description="Optimizer step it was taken at.")
    epoch: float | None = Field(default=None, description="Passes over the training data done.")
    metrics: Metrics = Field(default={}, description="Metrics measured at that step.")
    bytes: int = Field(ge=0, description="Size of all its files in bytes.")
    digest: str = Field(max_length=128, description="`sha256:` digest of its manifest.")
    uri: str | None = Field(default=None, max_length=1024, description="Where it lies: pvc://claim/path.")
    best: bool = Field(default=False, description="Whether it has the best evaluation of the run so far.")
    created_at: Timestamp = Field(description="When it was committed.")


class ExportState(StrEnum):
    """How far an export is. The trainer's own are made when it ends; those appended later have a Job of their own."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ExportStatus(StatusModel):
    """One artefact of a finished run."""

    format: str = Field(max_length=32, description="adapter, model, merged or gguf, as in spec.exports.")
    state: ExportState = Field(
        default=ExportState.SUCCEEDED,
        description="How far it is; Pending, Running and Failed are said of exports appended to spec.exports.",
    )
    reason: str | None = Field(default=None, max_length=128, description="Why it waits or failed, one CamelCase word.")
    job_name: str | None = Field(
        default=None, max_length=63, description="The Job that makes or made it, when it was appended to spec.exports."
    )
    uri: str | None = Field(default=None, max_length=1024, description="Where it lies: pvc://claim/path.")
    bytes: int | None = Field(default=None, ge=0, description="Size of all its files in bytes.")
    digest: str | None = Field(
        default=None, max_length=128, description="`sha256:` digest over its files' names and digests."
    )
    destination: str | None = Field(default=None, max_length=1024, description="Where a copy lies: s3://bucket/folder.")
    message: str | None = Field(
        default=None,
        max_length=1024,
        description="How far it is from the trained model; or what it waits for, why it failed and what to do.",
    )


class ResolvedModel(StatusModel):
    """The base model a run really used."""

    source: str = Field(max_length=1024, description="Where the model came from, as written in the spec.")
    revision: str | None = Field(default=None, max_length=128, description="The commit the revision resolved to.")


class MemoryEstimate(StatusModel):
    """What a run is predicted to need of one device, said before anything is loaded."""

    bytes: int = Field(ge=0, description="Predicted peak of the memory of one GPU (of the process, on a CPU).")
    basis: str = Field(max_length=256, description="What the prediction is made from.")
    least_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Predicted peak on a small device: with recompute auto, what the run takes at least.",
    )
    device_bytes: int | None = Field(
        default=None, ge=0, description="Memory that was free for the run on its device (in its container, on a CPU)."
    )
    advice: str | None = Field(default=None, max_length=256, description="What would lower the peak most.")


class Report(StatusModel):
    """Body of one progress POST. Lists are complete, never deltas; only the newest report matters."""

    model_config = ConfigDict(extra="forbid")

    sequence: int = Field(ge=0, description="Grows by one per report of one trainer process.")
    owner_epoch: int = Field(ge=0, description="The trainer's number among all that ever owned the run directory.")
    progress: Progress
    metrics: Metrics = {}
    gpus: Annotated[list[Gpu], Field(max_length=MOST_GPUS)] = []
    checkpoints: Annotated[list[CheckpointStatus], Field(max_length=20)] = []
    model: ResolvedModel | None = None
    memory_estimate: MemoryEstimate | None = None
    warnings: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=8)] = {}
    """Reason (CamelCase) -> sentence, for example GracePeriodTooShort."""


class KubeflowMetric(StatusModel):
    """One metric of a Kubeflow Trainer status body; the value is text there."""

    name: str = Field(max_length=128)
    value: str = Field(max_length=64)


class KubeflowTrainerStatus(StatusModel):
    """The object below `trainerStatus` that Hugging Face's KubeflowCallback posts."""

    last_updated_time: Timestamp | None = None
    progress_percentage: int | None = Field(default=None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    metrics: Annotated[list[KubeflowMetric], Field(max_length=256)] = []


class KubeflowReport(StatusModel):
    """Body of a Kubeflow Trainer status POST."""

    trainer_status: KubeflowTrainerStatus


class Outcome(StrEnum):
    """How a trainer process ended."""

    FINISHED = "Finished"
    INTERRUPTED = "Interrupted"
    FAILED = "Failed"


class Termination(StatusModel):
    """The termination message of a trainer's container, and the content of result.json."""

    outcome: Outcome
    exit_code: int
    reason: str = Field(max_length=64)
    message: str = Field(default="", max_length=1024, description="What happened, in a sentence.")
    advice: str = Field(default="", max_length=512, description="What to change, in a sentence.")
    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    metrics: Metrics = {}
    model: ResolvedModel | None = None
    memory_estimate: MemoryEstimate | None = None
    checkpoints: list[CheckpointStatus] = []
    exports: list[ExportStatus] = []

    def to_message(self) -> str:
        """JSON of at most TERMINATION_LIMIT bytes: old checkpoints give way first, then long texts."""
        document = self.to_json()
        while len(_encode(document)) > TERMINATION_LIMIT and _drop_oldest(document):
            pass
        for key in ("metrics", "message", "advice", "exports", "checkpoints"):
            if len(_encode(document)) <= TERMINATION_LIMIT:
                break
            document[key] = document[key][:200] if isinstance(document[key], str) else type(document[key])()
        return _encode(document).decode()


def _drop_oldest(document: dict[str, Any]) -> bool:
    """Remove the oldest checkpoint that is neither the best nor the last; False when there is none."""
    checkpoints = document["checkpoints"]
    for index, checkpoint in enumerate(checkpoints[:-1]):
        if not checkpoint["best"]:
            del checkpoints[index]
            return True
    return False


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
