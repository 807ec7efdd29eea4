"""The status of a TrainingJob."""

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
    InvalidRows,
    MemoryEstimate,
    Metrics,
    Progress,
    ResolvedModel,
)


class Phase(StrEnum):
    """Summary of the conditions, which are authoritative."""

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


FINAL_CONDITION = {Phase.SUCCEEDED: "Complete", Phase.FAILED: "Failed", Phase.STOPPED: "Stopped"}
"""The condition of each final phase."""
FINISHED = "Finished"
"""The condition of all final phases."""
FINAL_PHASES = frozenset(FINAL_CONDITION)
FINAL_CONDITIONS = frozenset({FINISHED, *FINAL_CONDITION.values()})


class Attempt(StatusModel):
    """One attempt: the pod, or the first pod (index 0) of a gang."""

    number: int = Field(description="Number of the attempt, from 1.")
    pod: str = Field(max_length=253, description="Name of the pod; of the first one with several nodes.")
    pod_uid: str = Field(alias="podUID", max_length=64, description="UID of the pod.")
    node: str | None = Field(default=None, max_length=253, description="Node of the pod.")
    started_at: Timestamp | None = Field(default=None, description="Start of the container.")
    finished_at: Timestamp | None = Field(default=None, description="End of the container.")
    exit_code: int | None = Field(default=None, description="Exit code of the container.")
    reason: str | None = Field(default=None, max_length=128, description="CamelCase reason why it ended.")
    message: str | None = Field(
        default=None, max_length=1024, description="Cause of the end and remedy, in a sentence."
    )


class AttemptCounts(StatusModel):
    """Totals over all attempts, including those removed from the list."""

    total: int = Field(default=0, description="Number of attempts.")
    failed: int = Field(default=0, description="Attempts counted against retry.limit.")
    restarts_without_progress: int = Field(default=0, description="Consecutive uncounted restarts without a new step.")
    running_seconds: int = Field(default=0, description="Running time of the finished attempts in seconds.")
    last_step: int = Field(default=0, description="Highest step that an attempt reported.")


class Summary(StatusModel):
    """Texts of the printer columns."""

    progress: str | None = Field(
        default=None, max_length=16, description="Completed share of the steps, for example 37%."
    )
    step: str | None = Field(default=None, max_length=32, description="Completed and total steps, for example 120/320.")
    loss: str | None = Field(default=None, max_length=16, description="Latest training loss.")
    eta: str | None = Field(default=None, max_length=16, description="Estimated time left, for example 1h12m.")
    gpus: str | None = Field(default=None, max_length=16, description="Requested GPUs of all pods.")
    queue: str | None = Field(default=None, max_length=32, description="Queue position, for example 3 of 14.")


class TrainingJobStatus(StatusModel):
    """Observed state of the run."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that this status was computed from."
    )
    phase: Phase | None = Field(default=None, description="Summary of the conditions.")
    message: str | None = Field(
        default=None, max_length=2048, description="Current activity or failure, in a sentence."
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Conditions: Complete, Failed, Suspended, Stopped, Finished, Running, Admitted, Stalled, "
        "MemoryTooSmall.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    model: ResolvedModel | None = Field(default=None, description="Base model of the run with its resolved revision.")
    queue: QueueStatus | None = Field(default=None, description="State in the queue.")
    start_time: Timestamp | None = Field(default=None, description="Start of the first container.")
    completion_time: Timestamp | None = Field(
        default=None, description="Time the job finished: Succeeded, Failed or Stopped."
    )
    job_name: str | None = Field(default=None, max_length=63, description="Name of the child batch/v1 Job.")
    run_uri: str | None = Field(default=None, max_length=1024, description="Run directory: pvc://claim/path.")
    attempts: list[Attempt] = Field(
        default=[],
        max_length=20,
        description="The newest 20 attempts, oldest first.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
    )
    attempt_counts: AttemptCounts | None = Field(default=None, description="Totals over all attempts.")
    progress: Progress | None = Field(default=None, description="Progress of the run.")
    metrics: Metrics | None = Field(
        default=None,
        description="Latest value of each metric: loss, evalLoss, baselineEvalLoss, learningRate, gradNorm and others.",
    )
    gpus: list[Gpu] = Field(
        default=[],
        max_length=MOST_GPUS,
        description="GPUs of all pods as reported by NVML, at most 64.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    memory_estimate: MemoryEstimate | None = Field(
        default=None, description="Predicted memory of the run on one device."
    )
    invalid_rows: InvalidRows | None = Field(
        default=None, description="Rows that training skips because they are invalid."
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
        description="Exports of the finished run.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    log_tail: str | None = Field(
        default=None, max_length=2048, description="End of the log of a failed job, secrets redacted."
    )
    summary: Summary | None = Field(default=None, description="Texts of the printer columns of kubectl get.")
