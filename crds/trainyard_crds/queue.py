"""Queueing of a TrainingJob: spec.queue and status.queue."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainyard_crds.common import DnsName, SpecModel, StatusModel, Timestamp

DEFAULT_PRIORITY = 5


class Queue(SpecModel):
    """Queue settings; may change while the object waits."""

    priority: int = Field(
        default=DEFAULT_PRIORITY,
        ge=0,
        le=10,
        description="0 to 10: a higher priority is admitted first, the same priority in order of arrival.",
    )
    name: DnsName | None = Field(
        default=None,
        max_length=63,
        description="Under Kueue (chart value queue.mode: Kueue): the LocalQueue of this namespace. Default: the "
        "chart's queue.localQueue. A change takes effect when the object is queued the next time.",
    )


class FailedStarts(StatusModel):
    """Consecutive admissions withdrawn by the start timeout: pods were not scheduled or could not be created."""

    count: int = Field(ge=1, description="Number of withdrawn admissions.")
    seconds: int = Field(ge=0, description="Seconds they took in total; counted against spec.startDeadlineSeconds.")
    message: str = Field(max_length=1024, description="Cause of the last one.")
    not_before: Timestamp = Field(
        description="Time before which the job is not admitted again; it keeps its queue position."
    )


class QueueStatus(StatusModel):
    """State of a job in the queue; only pool and enqueuedAt remain after admission."""

    pool: str | None = Field(
        default=None,
        max_length=512,
        description="Pool whose GPUs the job waits for: resource and node labels; under Kueue the LocalQueue.",
    )
    position: int | None = Field(
        default=None, ge=1, description="Queue position in the pool, from 1; above 20 the upper end of a range."
    )
    length: int | None = Field(
        default=None, ge=1, description="Number of jobs queued in the pool, rounded like position."
    )
    enqueued_at: Timestamp | None = Field(
        default=None,
        description="Time the job was queued first; it orders jobs of the same priority and never changes.",
    )
    estimated_start_time: Timestamp | None = Field(
        default=None, description="Estimated time of admission; omitted if unknown."
    )
    estimate_basis: Literal["progress", "history", "deadline"] | None = Field(
        default=None,
        description="Weakest basis of the estimate: progress of running jobs, history of earlier jobs, or deadlines.",
    )
    reason: str | None = Field(
        default=None, max_length=64, description="Stable CamelCase reason why the job is not admitted."
    )
    failed_starts: FailedStarts | None = Field(
        default=None, description="Withdrawn admissions; omitted after a successful start."
    )
