"""Reports of the trainer: progress reports and the termination message."""

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
    """Current activity of a run."""

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
    """Progress of a run."""

    stage: Stage = Field(default=Stage.STARTING, description="Current activity of the run.")
    step: int = Field(default=0, ge=0, description="Completed optimizer steps.")
    total_steps: int | None = Field(default=None, ge=0, description="Optimizer steps of the whole run.")
    epoch: float | None = Field(default=None, ge=0, description="Completed passes over the training data.")
    percent: float | None = Field(default=None, ge=0, le=100, description="Completed share of the steps, 0 to 100.")
    stage_percent: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Completed share of the current stage, 0 to 100, for stages that report it: a download, a copy.",
    )
    remaining_seconds: int | None = Field(default=None, ge=0, description="Estimated seconds until the run finishes.")
    steps_per_second: float | None = Field(default=None, ge=0, description="Recent optimizer steps per second.")
    tokens_per_second: float | None = Field(
        default=None, ge=0, description="Recent tokens per second, without padding."
    )
    updated_at: Timestamp | None = Field(default=None, description="Time of the trainer's report.")


MOST_GPUS = 64
"""Maximum of GPUs in a report; larger runs report those of the first pods."""


class Gpu(StatusModel):
    """One GPU of the run, as reported by NVML."""

    name: str = Field(max_length=128, description="Product name.")
    memory_used: int = Field(ge=0, description="Memory used by all processes, in bytes.")
    memory_total: int = Field(ge=0, description="Memory of the device, in bytes.")
    utilization: int = Field(ge=0, le=100, description="Percentage of time with a running kernel in the last sample.")
    pod: int | None = Field(default=None, ge=0, description="Index of the pod, in a run on several nodes.")


class CheckpointStatus(StatusModel):
    """One verified checkpoint."""

    name: str = Field(max_length=128, description="Directory name under checkpoints/, `step-<N>-e<epoch>`.")
    step: int = Field(ge=0, description="Optimizer step of the checkpoint.")
    epoch: float | None = Field(default=None, description="Completed passes over the training data.")
    metrics: Metrics = Field(default={}, description="Metrics at that step.")
    bytes: int = Field(ge=0, description="Size of all its files in bytes.")
    digest: str = Field(max_length=128, description="`sha256:` digest of its manifest.")
    uri: str | None = Field(default=None, max_length=1024, description="Location: pvc://claim/path.")
    best: bool = Field(default=False, description="Whether it has the best evaluation result of the run so far.")
    created_at: Timestamp = Field(description="Time it was published.")


class ExportState(StrEnum):
    """State of an export. The trainer writes exports at the end of a run; those appended later have a separate Job."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ExportStatus(StatusModel):
    """One export of a finished run."""

    format: str = Field(max_length=32, description="adapter, model, merged or gguf, as in spec.exports.")
    state: ExportState = Field(
        default=ExportState.SUCCEEDED,
        description="State; Pending, Running and Failed occur for exports appended to spec.exports only.",
    )
    reason: str | None = Field(
        default=None, max_length=128, description="CamelCase reason why it is pending or failed."
    )
    job_name: str | None = Field(
        default=None, max_length=63, description="Name of the Job that writes an export appended to spec.exports."
    )
    uri: str | None = Field(default=None, max_length=1024, description="Location: pvc://claim/path.")
    bytes: int | None = Field(default=None, ge=0, description="Size of all its files in bytes.")
    digest: str | None = Field(
        default=None, max_length=128, description="`sha256:` digest of its files' names and digests."
    )
    destination: str | None = Field(
        default=None, max_length=1024, description="Location of the copy: s3://bucket/folder."
    )
    message: str | None = Field(
        default=None,
        max_length=1024,
        description="Difference to the trained model; or the cause and remedy if it is pending or failed.",
    )


class ResolvedModel(StatusModel):
    """The base model of a run."""

    source: str = Field(max_length=1024, description="Source of the model, as in the spec.")
    revision: str | None = Field(default=None, max_length=128, description="Commit that the revision resolved to.")


class MemoryEstimate(StatusModel):
    """Predicted memory of a run on one device, computed before the model is loaded."""

    bytes: int = Field(ge=0, description="Predicted peak memory of one GPU (on a CPU, of the process), in bytes.")
    basis: str = Field(max_length=256, description="Inputs of the prediction.")
    least_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Predicted peak on a small device, in bytes: the minimum with recompute: auto.",
    )
    device_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Memory available to the run on its device (on a CPU, in its container), in bytes.",
    )
    advice: str | None = Field(
        default=None, max_length=256, description="Change of the spec that lowers the peak most."
    )


MOST_INVALID_ROWS = 5
"""Invalid rows that are named."""
ROW_LIMIT, ROW_MESSAGE_LIMIT = 128, 256


class InvalidRow(StatusModel):
    """One row that training skips."""

    row: str = Field(max_length=ROW_LIMIT, description="File and row number, for example `train.jsonl, row 17`.")
    message: str = Field(max_length=ROW_MESSAGE_LIMIT, description="What is invalid in it, in a sentence.")


class InvalidRows(StatusModel):
    """Rows that training skips because they are invalid (spec.dataset.onInvalidRow: skip)."""

    count: int = Field(ge=1, description="Number of them, in the training rows and in a file of held-out rows.")
    first: list[InvalidRow] = Field(
        default=[],
        max_length=MOST_INVALID_ROWS,
        description=f"The first {MOST_INVALID_ROWS} of them, in the order of the file.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class Report(StatusModel):
    """Body of a progress POST. Lists are complete, never deltas; only the newest report counts."""

    model_config = ConfigDict(extra="forbid")

    sequence: int = Field(ge=0, description="Increases by one with each report of a trainer process.")
    owner_epoch: int = Field(
        ge=0, description="Owner epoch of the trainer: increases with each owner of the run directory."
    )
    progress: Progress
    metrics: Metrics = {}
    gpus: Annotated[list[Gpu], Field(max_length=MOST_GPUS)] = []
    checkpoints: Annotated[list[CheckpointStatus], Field(max_length=20)] = []
    model: ResolvedModel | None = None
    memory_estimate: MemoryEstimate | None = None
    invalid_rows: InvalidRows | None = None
    warnings: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=8)] = {}
    """CamelCase reason -> sentence, for example GracePeriodTooShort."""


class KubeflowMetric(StatusModel):
    """One metric of a Kubeflow Trainer status body, with the value as text."""

    name: str = Field(max_length=128)
    value: str = Field(max_length=64)


class KubeflowTrainerStatus(StatusModel):
    """The `trainerStatus` object posted by Hugging Face's KubeflowCallback."""

    last_updated_time: Timestamp | None = None
    progress_percentage: int | None = Field(default=None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    metrics: Annotated[list[KubeflowMetric], Field(max_length=256)] = []


class KubeflowReport(StatusModel):
    """Body of a Kubeflow Trainer status POST."""

    trainer_status: KubeflowTrainerStatus


class Outcome(StrEnum):
    """Outcome of a trainer process."""

    FINISHED = "Finished"
    INTERRUPTED = "Interrupted"
    FAILED = "Failed"


class Termination(StatusModel):
    """The termination message of the trainer's container and the content of result.json."""

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
    invalid_rows: InvalidRows | None = None
    checkpoints: list[CheckpointStatus] = []
    exports: list[ExportStatus] = []

    def to_message(self) -> str:
        """Return JSON of at most TERMINATION_LIMIT bytes.

        What is dropped first: the names of invalid rows, then old checkpoints; then long texts are cut.
        """
        document = self.to_json()
        if len(_encode(document)) > TERMINATION_LIMIT and "invalidRows" in document:
            document["invalidRows"]["first"] = []
        while len(_encode(document)) > TERMINATION_LIMIT and _drop_oldest(document):
            pass
        for key in ("metrics", "message", "advice", "exports", "checkpoints"):
            if len(_encode(document)) <= TERMINATION_LIMIT:
                break
            document[key] = document[key][:200] if isinstance(document[key], str) else type(document[key])()
        return _encode(document).decode()


def _drop_oldest(document: dict[str, Any]) -> bool:
    """Remove the oldest checkpoint that is neither the best nor the last; return False if there is none."""
    checkpoints = document["checkpoints"]
    for index, checkpoint in enumerate(checkpoints[:-1]):
        if not checkpoint["best"]:
            del checkpoints[index]
            return True
    return False


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
