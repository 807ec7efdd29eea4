"""The status of a TrainingJob: what operator and gateway know about the run."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from trainyard_crds.common import Condition, StatusModel, Timestamp
from trainyard_crds.queue import QueueStatus
from trainyard_crds.report import (
    MOST_GPUS,
    CheckpointStatus,
    ExportStatus,
    Gpu,
    MemoryEstimate,
    Metrics,
    Progress,
    ResolvedModel,
)


class Phase(StrEnum):
    """A printed summary of the conditions; the conditions are the truth."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


FINAL_PHASES = frozenset({Phase.STOPPED, Phase.SUCCEEDED, Phase.FAILED})


class Attempt(StatusModel):
    """One start of the job: its pod, or the first pod (index 0) of a job on several nodes."""

    number: int = Field(description="1 for the first start.")
    pod: str = Field(max_length=253, description="Name of the pod; with several nodes, of the first one.")
    pod_uid: str = Field(alias="podUID", max_length=64, description="UID of the pod.")
    node: str | None = Field(default=None, max_length=253, description="Node it ran on.")
    started_at: Timestamp | None = Field(default=None, description="When its container started.")
    finished_at: Timestamp | None = Field(default=None, description="When its container ended.")
    exit_code: int | None = Field(default=None, description="Exit code of its container.")
    reason: str | None = Field(default=None, max_length=128, description="Why it ended, one CamelCase word.")
    message: str | None = Field(default=None, max_length=1024, description="Why it ended, in a sentence.")


class AttemptCounts(StatusModel):
    """Totals that stay true when old attempts leave the list."""

    total: int = Field(default=0, description="Starts of the job, each counted once.")
    failed: int = Field(default=0, description="Starts that count against retry.limit.")
    restarts_without_progress: int = Field(default=0, description="Free restarts in a row without a new step.")
    running_seconds: int = Field(default=0, description="Seconds containers of finished attempts ran, in all.")
    last_step: int = Field(default=0, description="Highest step any attempt reported.")


class Summary(StatusModel):
    """Short texts for the columns of `kubectl get`."""

    progress: str | None = Field(default=None, max_length=16, description="Share of the steps done, for example 37%.")
    step: str | None = Field(default=None, max_length=32, description="Steps done of all, for example 120/320.")
    loss: str | None = Field(default=None, max_length=16, description="Latest training loss.")
    eta: str | None = Field(default=None, max_length=16, description="Estimated time left, for example 1h12m.")
    gpus: str | None = Field(default=None, max_length=16, description="GPUs the job asks for, those of all its pods.")
    queue: str | None = Field(default=None, max_length=32, description="Place among waiting jobs, for example 3 of 14.")


class TrainingJobStatus(StatusModel):
    """What we know about the run."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the spec this status was computed from."
    )
    phase: Phase | None = Field(default=None, description="Printed summary of the conditions.")
    message: str | None = Field(
        default=None, max_length=2048, description="What is going on or went wrong, in a sentence."
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Complete, Failed, Suspended, Stopped, Finished, Running, Admitted, Stalled, MemoryTooSmall, each "
        "with a reason.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    model: ResolvedModel | None = Field(default=None, description="The base model the run really used.")
    queue: QueueStatus | None = Field(default=None, description="Place among the jobs that wait for GPUs.")
    start_time: Timestamp | None = Field(default=None, description="When the first container started.")
    completion_time: Timestamp | None = Field(default=None, description="When the job finished, however it did.")
    job_name: str | None = Field(default=None, max_length=63, description="Name of the child batch/v1 Job.")
    run_uri: str | None = Field(default=None, max_length=1024, description="Run directory: pvc://claim/path.")
    attempts: list[Attempt] = Field(
        default=[],
        max_length=20,
        description="The newest starts of the job, oldest first, at most 20.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
    )
    attempt_counts: AttemptCounts | None = Field(default=None, description="Totals over all attempts.")
    progress: Progress | None = Field(default=None, description="How far the run is.")
    metrics: Metrics | None = Field(
        default=None,
        description="Latest value of each metric: loss, evalLoss, baselineEvalLoss, learningRate, gradNorm and others.",
    )
    gpus: list[Gpu] = Field(
        default=[],
        max_length=MOST_GPUS,
        description="The run's GPUs as NVML sees them, those of all pods; the first 64.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    memory_estimate: MemoryEstimate | None = Field(
        default=None, description="What the run is predicted to need of one device, to compare with gpus."
    )
    checkpoints: list[CheckpointStatus] = Field(
        default=[],
        max_length=20,
        description="Verified checkpoints, oldest first, at most 20.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    exports: list[ExportStatus] = Field(
        default=[],
        max_length=20,
        description="What the finished run left to use.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    log_tail: str | None = Field(
        default=None, max_length=2048, description="End of the log of a failed job, secrets redacted."
    )
    summary: Summary | None = Field(default=None, description="Short texts for the columns of kubectl get.")
