"""Rate limit for Kueue's messages: the missing quota in them changes with every start, for all waiting jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trainyard_kube.resource import Key
from trainyard_kube.token_bucket import TokenBucket
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.position import PUBLISH_INTERVAL
from trainyard_operator.queue.reasons import Reason


class _Published(NamedTuple):
    """What is published for a waiting job, and since when."""

    reason: str
    message: str
    at: float


class MessageLimiter:
    """Keeps the published message of a waiting job until the write budget allows a new one.

    Args:
        clock: Monotonic seconds.
        budget: Limits status updates over all jobs.
    """

    def __init__(self, clock: Callable[[], float], budget: TokenBucket) -> None:
        self._clock, self._budget = clock, budget
        self._published: dict[str, _Published] = {}
        self._deferred: set[Key] = set()

    def restore(self, job_uid: str, reason: Reason) -> None:
        """Restore what an earlier process published."""
        self._published[job_uid] = _Published(reason.code, reason.message, at=-PUBLISH_INTERVAL)

    def forget(self, job_uid: str) -> None:
        """Drop what is known of a child Job that is gone."""
        self._published.pop(job_uid, None)

    def limit(self, key: Key, job_uid: str, admission: Admission) -> Admission:
        """Return the decision with the message to publish now; a new reason is published at once."""
        published = self._published.get(job_uid)
        if admission.admitted or not job_uid:
            self._published.pop(job_uid, None)
            return admission
        if published is not None and published.reason == admission.reason:
            if published.message == admission.message:
                return admission
            clock = self._clock()
            if clock - published.at < PUBLISH_INTERVAL or not self._budget.try_take(clock):
                self._deferred.add(key)
                return admission._replace(message=published.message)
        self._published[job_uid] = _Published(admission.reason, admission.message, self._clock())
        return admission

    def take_deferred(self) -> set[Key]:
        """Return the jobs whose new message was held back, and clear them."""
        deferred, self._deferred = self._deferred, set()
        return deferred
