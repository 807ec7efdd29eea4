"""The pods of a job: one attempt each, recorded once when seen and once when ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trainyard_crds.contract import child_name
from trainyard_crds.exitcodes import OnExit
from trainyard_crds.trainingjob_resources import Resources
from trainyard_crds.trainingjob_status import AttemptCounts
from trainyard_operator.trainingjob.failure import LOST, Ending, ending
from trainyard_operator.trainingjob.model import Need, Object, Observed
from trainyard_operator.trainingjob.objects import (
    container_state,
    format_time,
    is_running,
    job_finished,
    job_suspended,
    pod_ended,
    seconds_between,
)

LIMIT = 20
"""Attempts kept in the status."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The attempts of a job, brought up to date.

    Attributes:
        attempts: As they stand in `status.attempts`, oldest first, at most LIMIT.
        counts: As they stand in `status.attemptCounts`.
        ending: How the last attempt ended; None while it runs, and when its pod is gone.
        ended_now: Whether the last attempt's end was not recorded before.
        pod: The last attempt's pod; None when it is gone.
        unfinished: Whether any pod may still hold a GPU.
    """

    attempts: list[Object]
    counts: AttemptCounts
    ending: Ending | None = None
    ended_now: bool = False
    pod: Object | None = None
    unfinished: bool = False

    @property
    def last(self) -> Object | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def running(self) -> bool:
        """Whether the trainer's container runs."""
        return self.pod is not None and is_running(self.pod)

    def running_seconds(self, now: datetime) -> float:
        """Seconds the job's containers ran, in all, until now."""
        current = 0.0
        if self.last and "finishedAt" not in self.last and "startedAt" in self.last:
            current = seconds_between(self.last["startedAt"], format_time(now))
        return self.counts.running_seconds + current


def history(observed: Observed, now: datetime) -> History | Need:
    """The attempts with every pod's news, or the pod to look up before one may be called lost."""
    pods, lost = _current(observed), _vanished(observed)
    if isinstance(pods, Need):
        return pods
    if isinstance(lost, Need):
        return lost
    by_uid = {pod["metadata"]["uid"]: pod for pod in [*pods, *lost]}
    attempts = [dict(entry) for entry in observed.status.get("attempts", [])]
    counts = AttemptCounts.model_validate(observed.status.get("attemptCounts") or {})
    for pod in _unrecorded(pods, attempts, counts):
        counts = counts.model_copy(update={"total": counts.total + 1})
        metadata = pod["metadata"]
        attempts.append({"number": counts.total, "pod": metadata["name"], "podUID": metadata["uid"]})
    ended_now = False
    for entry in attempts:
        if "finishedAt" not in entry:
            counts, ended = _update(entry, by_uid.get(entry["podUID"]), observed, counts, now)
            ended_now = ended and entry is attempts[-1]
    last_pod = by_uid.get(attempts[-1]["podUID"]) if attempts else None
    return History(
        attempts=attempts[-LIMIT:],
        counts=counts,
        ending=ending(last_pod, memory_limit(observed)) if last_pod else None,
        ended_now=ended_now,
        pod=last_pod,
        unfinished=any(not pod_ended(pod) for pod in by_uid.values()),
    )


def memory_limit(observed: Observed) -> str:
    """Memory limit of the trainer's container as the user wrote it."""
    asked = observed.spec.get("resources") or {}
    return str(asked.get("memory") or Resources(gpus=asked.get("gpus", 1)).memory_limit)


def _current(observed: Observed) -> list[Object] | Need:
    """The training Job's own pods. Those that seem to go on after its end are looked up: their watch is late."""
    pods = _pods(observed)
    if not job_finished(observed.child):
        return pods
    current = []
    for pod in pods:
        need = Need("pods", pod["metadata"]["name"])
        if pod_ended(pod):
            current.append(pod)
        elif need not in observed.answers:
            return need
        elif (found := observed.answers[need]) is not None and found["metadata"]["uid"] == pod["metadata"]["uid"]:
            current.append(found)
    return current


def _pods(observed: Observed) -> list[Object]:
    """The training Job's own pods, oldest first."""
    name = child_name(observed.name, observed.uid)
    child_uid = observed.child["metadata"]["uid"] if observed.child else None
    own = [pod for pod in observed.pods if _owned(pod, name, child_uid)]
    return sorted(own, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _owned(pod: Object, name: str, uid: str | None) -> bool:
    owners = [entry for entry in pod["metadata"].get("ownerReferences", []) if entry.get("controller")]
    return any(entry["kind"] == "Job" and entry["name"] == name and uid in (None, entry["uid"]) for entry in owners)


def _vanished(observed: Observed) -> list[Object] | Need:
    """Pods of unfinished attempts that the Store lacks but a look-up found; the first look-up still to make."""
    seen, found = {pod["metadata"]["uid"] for pod in observed.pods}, []
    for entry in observed.status.get("attempts", []):
        if "finishedAt" in entry or entry["podUID"] in seen:
            continue
        need = Need("pods", entry["pod"])
        if need not in observed.answers:
            return need
        pod = observed.answers[need]
        if pod is not None and pod["metadata"]["uid"] == entry["podUID"]:
            found.append(pod)
    return found


def _unrecorded(pods: list[Object], attempts: list[Object], counts: AttemptCounts) -> list[Object]:
    """Pods that have no attempt yet; those older than a recorded one were, and have left the full list."""
    recorded = {entry["podUID"] for entry in attempts}
    newest = max((i for i, pod in enumerate(pods) if pod["metadata"]["uid"] in recorded), default=-1)
    candidates = pods[newest + 1 :] if counts.total > len(attempts) else pods
    return [pod for pod in candidates if pod["metadata"]["uid"] not in recorded]


def _update(
    entry: Object, pod: Object | None, observed: Observed, counts: AttemptCounts, now: datetime
) -> tuple[AttemptCounts, bool]:
    """Write a pod's news into its attempt; the new counts, and whether it has ended."""
    end = _end(pod, observed)
    if pod is not None and (end is not None or is_running(pod)):
        started = container_state(pod).get("running", {}).get("startedAt")
        news = {"node": pod["spec"].get("nodeName"), "startedAt": started}
        entry |= {key: value for key, value in news.items() if value}
    if end is None:
        return counts, False
    if end.started_at:
        entry["startedAt"] = end.started_at
    entry["finishedAt"] = end.finished_at or format_time(now)
    entry |= {"reason": end.reason, "message": end.message}
    if end.exit_code is not None:
        entry["exitCode"] = end.exit_code
    return _count(counts, entry, end, observed), True


def _end(pod: Object | None, observed: Observed) -> Ending | None:
    return LOST if pod is None else ending(pod, memory_limit(observed))


def _count(counts: AttemptCounts, entry: Object, end: Ending, observed: Observed) -> AttemptCounts:
    """The totals after one more attempt ended. A pod that was asked to stop by a suspension counts for nothing."""
    reported = int((observed.status.get("progress") or {}).get("step", 0))
    step = max(reported, end.termination.step if end.termination else 0)
    asked = observed.child is None or job_suspended(observed.child)
    ran = seconds_between(entry["startedAt"], entry["finishedAt"]) if "startedAt" in entry else 0.0
    fruitless = counts.restarts_without_progress
    if step > counts.last_step:
        fruitless = 0
    elif end.action is OnExit.IGNORE and not asked:
        fruitless += 1
    return counts.model_copy(
        update={
            "failed": counts.failed + (end.action is OnExit.COUNT and not asked),
            "restarts_without_progress": fruitless,
            "running_seconds": counts.running_seconds + int(ran),
            "last_step": max(counts.last_step, step),
        }
    )
