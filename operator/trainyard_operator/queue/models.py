"""What a TrainingJob is to the queue, and the order in which jobs wait."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from trainyard_operator.queue.pool import Pool


class Basis(StrEnum):
    """What an expected time rests on, the surest first."""

    PROGRESS = "progress"
    HISTORY = "history"
    DEADLINE = "deadline"


class Expectation(NamedTuple):
    """How long a job is expected to take.

    Attributes:
        seconds: From now, or from its start for a job that waits.
        basis: What that rests on.
    """

    seconds: float
    basis: Basis


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job that waits for GPUs.

    Attributes:
        uid: UID of its TrainingJob.
        namespace: Its namespace.
        pool: Whose GPUs it asks for.
        gpus: GPUs on each node.
        nodes: Pods of its gang, which start together or not at all.
        priority: 0 to 10; a higher one goes first.
        enqueued: When the queue first saw it, which it keeps for life: neither a preemption nor a start that failed
            sends it to the back.
        seconds: Longest time it may run; None where nothing limits it.
        expected: How long it is expected to run; None where nobody can say.
        not_before: Earliest moment of its next try, after a start that failed; it holds nobody up meanwhile.
        setback: Why that start failed, in a sentence.
        needs: What each of its pods uses, by the names that ResourceQuotas have for it.
        made: Whether its Job is there.
    """

    uid: str
    namespace: str
    pool: Pool
    gpus: int
    nodes: int = 1
    priority: int = 5
    enqueued: datetime
    seconds: float | None = None
    expected: Expectation | None = None
    not_before: datetime | None = None
    setback: str = "Its last start came to nothing."
    needs: Mapping[str, Fraction] = field(default_factory=dict)
    made: bool = False

    @property
    def total(self) -> int:
        """GPUs of the whole gang."""
        return self.gpus * self.nodes

    @functools.cached_property
    def owner(self) -> str:
        """Namespace and UID, by which its pods are known."""
        return f"{self.namespace}/{self.uid}"

    @functools.cached_property
    def order(self) -> tuple[int, datetime, str]:
        """Sort key: strict first come, first served within a priority; the UID only separates equal moments."""
        return (-self.priority, self.enqueued, self.uid)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A job that was let in and has not given back its GPUs.

    Attributes:
        request: What it asked for.
        placement: The node meant for each pod of its gang, as decided at its admission.
        since: When it was admitted.
        remaining: How long it is expected to go on; None where nobody can say.
        limit: Seconds after which it is ended at the latest; None where nothing limits it.
        leaving: Whether it is on its way out: stopping, suspended, preempted or finished.
        done: Pods of its gang that ended well. No other follows them, so what they held is free at once, although the
            Job controller says that the Job is complete a second later.
        pods: Pods of its gang that are there, bound or not.
    """

    request: Request
    placement: tuple[str, ...]
    since: datetime
    remaining: Expectation | None = None
    limit: float | None = None
    leaving: bool = False
    done: int = 0
    pods: int = 0


def in_order(requests: Iterable[Request]) -> list[Request]:
    """The requests in the order in which they are to start."""
    return sorted(requests, key=lambda request: request.order)
