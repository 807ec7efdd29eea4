"""How a TrainingJob waits for GPUs: spec.queue and status.queue."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainyard_crds.common import DnsName, SpecModel, StatusModel, Timestamp

DEFAULT_PRIORITY = 5


class Queue(SpecModel):
    """Where a job stands among those that wait; may be changed while it waits."""

    priority: int = Field(
        default=DEFAULT_PRIORITY,
        ge=0,
        le=10,
        description="0 to 10: jobs of a higher priority start first; within one, first come, first served.",
    )
    name: DnsName | None = Field(
        default=None,
        max_length=63,
        description="Under Kueue (chart value queue.mode: Kueue): the LocalQueue of the job's namespace. Default: the "
        "chart's queue.localQueue. Changes take effect when the job waits the next time.",
    )


class FailedStarts(StatusModel):
    """Starts that came to nothing, one after the other, because the job's pods got no node or could not be made."""

    count: int = Field(ge=1, description="How many.")
    seconds: int = Field(ge=0, description="Seconds they took in all, which count against spec.startDeadlineSeconds.")
    message: str = Field(max_length=1024, description="Why the last one came to nothing.")
    not_before: Timestamp = Field(description="When the job may be let in again, from its old place.")


class QueueStatus(StatusModel):
    """A job's place in the queue; only pool and enqueuedAt stay once it runs."""

    pool: str | None = Field(
        default=None,
        max_length=512,
        description="Whose GPUs it waits for: the resource and the node labels; under Kueue the LocalQueue.",
    )
    position: int | None = Field(
        default=None, ge=1, description="Place in the pool, from 1; beyond 20 the upper end of a range."
    )
    length: int | None = Field(default=None, ge=1, description="Jobs that wait in the pool, rounded like position.")
    enqueued_at: Timestamp | None = Field(
        default=None, description="When the queue first saw the job; it keeps this place for life."
    )
    estimated_start_time: Timestamp | None = Field(
        default=None, description="When it is expected to start; absent where nobody can tell."
    )
    estimate_basis: Literal["progress", "history", "deadline"] | None = Field(
        default=None,
        description="The least sure thing the estimate rests on: progress of running jobs, earlier jobs, deadlines.",
    )
    reason: str | None = Field(default=None, max_length=64, description="Stable CamelCase word for why it waits.")
    failed_starts: FailedStarts | None = Field(
        default=None, description="Starts that came to nothing; absent as soon as one succeeds."
    )
