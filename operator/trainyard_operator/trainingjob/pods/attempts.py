"""The starts of a job, an attempt each, recorded once when its pod is seen and once when it ended.

Of several nodes only the first pod (index 0) is recorded: it reports, and its end is that of the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trainyard_crds.constants import child_name
from trainyard_crds.exitcodes import OnExit
from trainyard_crds.tasks import MEMORY_FIELDS
from trainyard_crds.trainingjob_status import AttemptCounts
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, format_time, parse_time, seconds_between
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.k8s_fields import (
    container_state,
    is_running,
    job_finished,
    job_suspended,
    pod_ended,
)
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.pods.gang_faults import (
    Fault,
    Group,
    cause,
    cause_is_near,
    group,
    leads,
    works_alone,
)
from trainyard_operator.trainingjob.pods.pod_termination import LOST, ContainerMemory, Ending, ending

LIMIT = 20
"""Attempts kept in the status."""
GROUP_RESTARTS = "GroupRestarts"
"""Reason of a group that lost a pod and starts again as a whole."""
_MESSAGE_LIMIT = 1024


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
        group: How the pods stand; None on one node.
        fault: Whose fault it was that the last attempt ended, or will end, where it was another pod's.
        cause_in: Seconds for which that is still waited for; the attempt does not count as ended until then.
    """

    attempts: list[Object]
    counts: AttemptCounts
    ending: Ending | None = None
    ended_now: bool = False
    pod: Object | None = None
    unfinished: bool = False
    group: Group | None = None
    fault: Fault | None = None
    cause_in: float | None = None

    @property
    def last(self) -> Object | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def running(self) -> bool:
        """Whether the trainer's container runs, that of each pod."""
        return self.pod is not None and is_running(self.pod) and (self.group is None or self.group.complete)

    @property
    def verdict(self) -> Ending | None:
        """The end that decides the Job's: that of the pod at fault, else the last attempt's."""
        return self.fault.ending if self.fault else self.ending

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
    leaders = [pod for pod in pods if leads(pod)]
    by_uid = {pod["metadata"]["uid"]: pod for pod in [*leaders, *lost]}
    attempts, counts = _entries(observed, leaders)
    record, news, since = _Record(observed, pods, now), _News(counts=counts), None
    for entry in attempts:
        news = record.take_in(entry, by_uid.get(entry["podUID"]), news.counts, since)
        since = parse_time(entry["finishedAt"]) if "finishedAt" in entry else None
    last_pod = by_uid.get(attempts[-1]["podUID"]) if attempts else None
    return History(
        attempts=attempts[-LIMIT:],
        counts=news.counts,
        ending=ending(last_pod, container_memory(observed)) if last_pod and news.cause_in is None else None,
        ended_now=news.ended,
        pod=last_pod,
        unfinished=any(not pod_ended(pod) for pod in [*pods, *lost]),
        group=group(pods, attempts, _size(observed), alone=_leads_alone(last_pod, observed)),
        fault=news.fault,
        cause_in=news.cause_in,
    )


@dataclass(frozen=True, kw_only=True)
class _News:
    """What the newest of the attempts that were looked at so far has become."""

    counts: AttemptCounts
    ended: bool = False
    fault: Fault | None = None
    cause_in: float | None = None


def _entries(observed: Observed, leaders: list[Object]) -> tuple[list[Object], AttemptCounts]:
    """The attempts as they were told, and those that are new."""
    attempts = [dict(entry) for entry in observed.status.get("attempts", [])]
    counts = AttemptCounts.model_validate(observed.status.get("attemptCounts") or {})
    for pod in _unrecorded(leaders, attempts, counts):
        counts = counts.model_copy(update={"total": counts.total + 1})
        metadata = pod["metadata"]
        attempts.append({"number": counts.total, "pod": metadata["name"], "podUID": metadata["uid"]})
    return attempts, counts


@dataclass(frozen=True)
class _Record:
    """Writes the pods' news into attempts."""

    observed: Observed
    pods: list[Object]
    now: datetime

    def take_in(self, entry: Object, pod: Object | None, counts: AttemptCounts, since: datetime | None) -> _News:
        """Bring one attempt up to date; `since` is when the one before it ended."""
        gang = pod is not None and _size(self.observed) > 1
        fault = self._fault(pod, since) if gang and pod else None
        if "finishedAt" in entry:
            return _News(counts=counts, fault=fault)
        newest = entry["number"] == counts.total
        cause_in = _cause_in(pod, self.observed, self.now) if gang and pod and newest and fault is None else None
        end = _end(pod, self.observed) if cause_in is None else None
        _tell(entry, pod, end)
        if end is None:
            return _News(counts=counts, fault=fault, cause_in=cause_in)
        self._close(entry, end, fault)
        return _News(counts=_count(counts, entry, end, fault, self.observed), ended=True, fault=fault)

    def _fault(self, leader: Object, since: datetime | None) -> Fault | None:
        """The other pod that ended the leader's start; where it was past training, only what failed the Job did."""
        found = cause(leader, self.pods, since, container_memory(self.observed))
        harmless = found is not None and found.ending.action is not OnExit.FAIL
        return None if harmless and works_alone(leader, self.observed.status.get("progress") or {}) else found

    def _close(self, entry: Object, end: Ending, fault: Fault | None) -> None:
        if end.started_at:
            entry["startedAt"] = end.started_at
        entry["finishedAt"] = end.finished_at or format_time(self.now)
        entry |= {"reason": end.reason, "message": end.message}
        if fault is not None:
            entry |= {"reason": fault.ending.reason, "message": fault.sentence[:_MESSAGE_LIMIT]}
        if end.exit_code is not None:
            entry["exitCode"] = end.exit_code


def _tell(entry: Object, pod: Object | None, end: Ending | None) -> None:
    """Write into an attempt where and since when its pod runs."""
    if pod is not None and (end is not None or is_running(pod)):
        started = container_state(pod).get("running", {}).get("startedAt")
        news = {"node": pod["spec"].get("nodeName"), "startedAt": started}
        entry |= {key: value for key, value in news.items() if value}


def restarts(observed: Observed) -> bool:
    """Whether the pods of a group are made to start again together."""
    found = condition(observed.job, "Running")
    return found is not None and found["status"] == "False" and found["reason"] == GROUP_RESTARTS


def _leads_alone(pod: Object | None, observed: Observed) -> bool:
    return pod is not None and not pod_ended(pod) and works_alone(pod, observed.status.get("progress") or {})


def _size(observed: Observed) -> int:
    """Pods the job is to have."""
    return observed.spec.resources.nodes


def _cause_in(pod: Object, observed: Observed, now: datetime) -> float | None:
    """Seconds to wait for whose fault it was; none where the Job is suspended or done, and it does not matter."""
    child = observed.child
    if child is None or job_suspended(child) or job_finished(child):
        return None
    return cause_is_near(pod, container_memory(observed), now)


def container_memory(observed: Observed) -> ContainerMemory:
    """Memory of the trainer's container, for advice."""
    return ContainerMemory(observed.spec.resources.memory_limit, MEMORY_FIELDS[observed.spec.task])


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


def _end(pod: Object | None, observed: Observed) -> Ending | None:
    return LOST if pod is None else ending(pod, container_memory(observed))


def _count(counts: AttemptCounts, entry: Object, end: Ending, fault: Fault | None, observed: Observed) -> AttemptCounts:
    """The totals after one more attempt ended. A pod that was asked to stop by a suspension counts for nothing.

    A group counts once, by what was at fault; that its last pods were stopped so that all can start again is a free
    restart like any other.
    """
    reported = int((observed.status.get("progress") or {}).get("step", 0))
    step = max(reported, end.termination.step if end.termination else 0)
    suspended = observed.child is None or job_suspended(observed.child)
    asked = suspended and fault is None and not restarts(observed)
    action = fault.ending.action if fault else end.action
    ran = seconds_between(entry["startedAt"], entry["finishedAt"]) if "startedAt" in entry else 0.0
    fruitless = counts.restarts_without_progress
    if step > counts.last_step:
        fruitless = 0
    elif action is OnExit.IGNORE and not asked:
        fruitless += 1
    return counts.model_copy(
        update={
            "failed": counts.failed + (action is OnExit.COUNT and not asked),
            "restarts_without_progress": fruitless,
            "running_seconds": counts.running_seconds + int(ran),
            "last_step": max(counts.last_step, step),
        }
    )
