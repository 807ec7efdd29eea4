"""The admission decision for one object: whether it may start or continue now, and what its status reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
QUEUE_IDENTITY_FIELDS = ("pool", "enqueuedAt")
"""Fields of `status.queue` that an object keeps for life."""
QUEUE_WAITING_FIELDS = ("position", "length", "estimatedStartTime", "estimateBasis", "reason")
"""Fields of `status.queue` that only a waiting object has."""


class KueueHandoff(NamedTuple):
    """How an object is connected to Kueue, where Kueue decides.

    Attributes:
        labels: Labels of its child Job that Kueue reads.
        workload: The Workload that Kueue created for that Job; None while there is none.
    """

    labels: Mapping[str, str]
    workload: Object | None = None


class Admission(NamedTuple):
    """The decision for one object.

    Attributes:
        admitted: Whether it may start or continue now.
        reason: CamelCase reason.
        message: Sentence for the user.
        decided: Whether this is a decision; False until the first admission cycle has covered the object.
        preempted: Whether a running job must free its GPUs for one of higher priority.
        nodes: The node planned for each pod; empty without a placement.
        admitted_at: API timestamp of the admission, unique among all jobs; empty where no queue decides.
        queue: Its entry in `status.queue`.
        start_seconds: Start timeout in seconds; None where no other job waits for the resources.
        elastic: Whether an elastic pool can serve it. The time until its pods have nodes then counts against
            `start_seconds` only.
        growth: What an admitted job waits for whose pods find no room on the nodes that exist, a sentence; empty for
            others.
        quota: The ResourceQuota that refuses pods of an admitted job, in a sentence; empty where none does.
        pending: Whether configuration is missing that the object needs before it can wait for GPUs.
        handoff: The connection to Kueue; None where the operator decides.
    """

    admitted: bool
    reason: str
    message: str
    decided: bool = True
    preempted: bool = False
    nodes: tuple[str, ...] = ()
    admitted_at: str = ""
    queue: Object | None = None
    start_seconds: int | None = None
    elastic: bool = False
    growth: str = ""
    quota: str = ""
    pending: bool = False
    handoff: KueueHandoff | None = None


def admit_immediately(_observed: object) -> Admission:
    """Admit every object as soon as it is observed."""
    return Admission(admitted=True, reason="Admitted", message="The job may start.")
