"""Whether a job may start now. The seam for a queue: whatever decides is handed to `plan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from trainyard_operator.trainingjob.model import Object, Observed


class Handover(NamedTuple):
    """What a job has to do with Kueue, where Kueue decides.

    Attributes:
        labels: The labels of its training Job that Kueue reads.
        workload: The Workload that Kueue made of that Job; None while there is none.
    """

    labels: Mapping[str, str]
    workload: Object | None = None


class Admission(NamedTuple):
    """The answer for one job.

    Attributes:
        admitted: Whether it may start or go on now.
        reason: CamelCase word.
        message: Sentence for the user.
        settled: Whether this is an answer at all; a queue that has not looked at a job yet has none.
        preempted: Whether a job that runs has to make room for one of higher priority.
        nodes: The node meant for each of its pods; empty where nobody chose.
        since: When it was let in; empty where there is no queue. No two jobs have the same moment.
        queue: Its entry in `status.queue`.
        start_seconds: Seconds within which all its pods have to get their nodes; None where nobody waits for what it
            holds.
        quota: Which ResourceQuota keeps pods from a job that was let in, in a sentence; empty where none does.
        pending: Whether it waits for something that has to be configured first, before it waits for GPUs.
        handover: What it has to do with Kueue; None where this operator decides.
    """

    admitted: bool
    reason: str
    message: str
    settled: bool = True
    preempted: bool = False
    nodes: tuple[str, ...] = ()
    since: str = ""
    queue: Object | None = None
    start_seconds: int | None = None
    quota: str = ""
    pending: bool = False
    handover: Handover | None = None


Admit = Callable[[Observed], Admission]


def at_once(_observed: Observed) -> Admission:
    """Every job starts when it is seen."""
    return Admission(admitted=True, reason="Admitted", message="The job may start.")
