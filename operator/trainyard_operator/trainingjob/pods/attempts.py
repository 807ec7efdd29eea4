"""The attempts of a job: each start is recorded when its pod is first seen, and completed when it ended.

Of a gang only the first pod (index 0) is recorded: it reports, and its end is that of the gang.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trainyard_crds.constants import child_name
from trainyard_crds.exitcodes import OnExit, codes_for
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
from trainyard_operator.trainingjob.pods.current_pods import current_pods
from trainyard_operator.trainingjob.pods.gang_faults import (
    Fault,
    Gang,
    gang_of,
    is_leader,
    pod_at_fault,
    seconds_to_await_fault,
    works_alone,
)
from trainyard_operator.trainingjob.pods.pod_termination import (
    EVICTED_BY_KUBELET,
    POD_LOST,
    ContainerMemory,
    Ending,
    pod_ending,
    seconds_to_await_kubelet,
)

LIMIT = 20
"""Attempts kept in the status."""
GROUP_RESTARTS = "GroupRestarts"
"""Reason of a gang that lost a pod and starts again as a whole."""
_MESSAGE_LIMIT = 1024


@dataclass(frozen=True, kw_only=True)
class History:
    """The attempts of a job, up to date.

    Attributes:
        attempts: As in `status.attempts`, oldest first, at most LIMIT.
        counts: As in `status.attemptCounts`.
        ending: How the last attempt ended; None while it runs, and when its pod is gone.
        ended_now: Whether the last attempt's end was not recorded before.
        pod: The last attempt's pod; None when it is gone.
        unfinished: Whether any pod may still hold a GPU.
        gang: State of the pods of a gang; None on one node.
        fault: The fault of another pod that ended, or will end, the last attempt.
        cause_in: Seconds for which such a fault, or the kubelet's verdict, is awaited; until then the attempt does not
            count as ended.
    """

    attempts: list[Object]
    counts: AttemptCounts
    ending: Ending | None = None
    ended_now: bool = False
    pod: Object | None = None
    unfinished: bool = False
    gang: Gang | None = None
    fault: Fault | None = None
    cause_in: float | None = None

    @property
    def last(self) -> Object | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def running(self) -> bool:
        """Whether the trainer's container runs, in each pod of a gang."""
        return self.pod is not None and is_running(self.pod) and (self.gang is None or self.gang.complete)

    @property
    def verdict(self) -> Ending | None:
        """The ending that determines how the Job ends: that of the pod at fault, else the last attempt's."""
        return self.fault.ending if self.fault else self.ending

    @property
    def counted_by_operator(self) -> bool:
        """Whether an attempt counts that the Job controller ignored: a pod that saved in time while it was evicted."""
        ignored = codes_for(OnExit.IGNORE)
        return any(
            entry.get("reason") == EVICTED_BY_KUBELET and entry.get("exitCode") in ignored for entry in self.attempts
        )

    def running_seconds(self, now: datetime) -> float:
        """Return the seconds for which the job's containers ran, in all, until now."""
        current = 0.0
        if self.last and "finishedAt" not in self.last and "startedAt" in self.last:
            current = seconds_between(self.last["startedAt"], format_time(now))
        return self.counts.running_seconds + current


def job_history(observed: Observed, now: datetime) -> History | Need:
    """Return the attempts, updated from the pods, or the pod to look up before one counts as lost."""
    pods, vanished = current_pods(observed, observed.child, _own_pods(observed)), _vanished_pods(observed)
    if isinstance(pods, Need):
        return pods
    if isinstance(vanished, Need):
        return vanished
    leaders = [pod for pod in pods if is_leader(pod)]
    by_uid = {pod["metadata"]["uid"]: pod for pod in [*leaders, *vanished]}
    attempts, counts = _entries(observed, leaders)
    recorder, update, since = _Recorder(observed, pods, now), _Update(counts=counts), None
    for entry in attempts:
        update = recorder.update(entry, by_uid.get(entry["podUID"]), update.counts, since)
        since = parse_time(entry["finishedAt"]) if "finishedAt" in entry else None
    last_pod = by_uid.get(attempts[-1]["podUID"]) if attempts else None
    memory = container_memory(observed)
    return History(
        attempts=attempts[-LIMIT:],
        counts=update.counts,
        ending=pod_ending(last_pod, memory) if last_pod and update.cause_in is None else None,
        ended_now=update.ended,
        pod=last_pod,
        unfinished=any(not pod_ended(pod) for pod in [*pods, *vanished]),
        gang=gang_of(pods, attempts, observed.spec.resources.nodes, alone=_leads_alone(last_pod, observed)),
        fault=update.fault,
        cause_in=update.cause_in,
    )


def container_memory(observed: Observed) -> ContainerMemory:
    """Return the memory of the trainer's container, for advice."""
    return ContainerMemory(observed.spec.resources.memory_limit, MEMORY_FIELDS[observed.spec.task])


def is_gang_restarting(observed: Observed) -> bool:
    """Return whether the pods of a gang are being started again together."""
    found = condition(observed.job, "Running")
    return found is not None and found["status"] == "False" and found["reason"] == GROUP_RESTARTS


@dataclass(frozen=True, kw_only=True)
class _Update:
    """State after the newest attempt that was updated so far."""

    counts: AttemptCounts
    ended: bool = False
    fault: Fault | None = None
    cause_in: float | None = None


def _entries(observed: Observed, leaders: list[Object]) -> tuple[list[Object], AttemptCounts]:
    """Return the recorded attempts followed by new ones."""
    attempts = [dict(entry) for entry in observed.status.get("attempts", [])]
    counts = AttemptCounts.model_validate(observed.status.get("attemptCounts") or {})
    for pod in _unrecorded(leaders, attempts, counts):
        counts = counts.model_copy(update={"total": counts.total + 1})
        metadata = pod["metadata"]
        attempts.append({"number": counts.total, "pod": metadata["name"], "podUID": metadata["uid"]})
    return attempts, counts


@dataclass(frozen=True)
class _Recorder:
    """Updates attempts from the pods."""

    observed: Observed
    pods: list[Object]
    now: datetime

    def update(self, entry: Object, pod: Object | None, counts: AttemptCounts, since: datetime | None) -> _Update:
        """Update one attempt; `since` is when the one before it ended."""
        leader = pod if self.observed.spec.resources.nodes > 1 else None
        fault = self._fault(leader, since) if leader else None
        if "finishedAt" in entry:
            return _Update(counts=counts, fault=fault)
        is_newest = entry["number"] == counts.total
        cause_in = self._cause_in(pod) if pod and is_newest and fault is None else None
        end = self._end(pod) if cause_in is None else None
        _record_start(entry, pod, end)
        if end is None:
            return _Update(counts=counts, fault=fault, cause_in=cause_in)
        self._record_end(entry, end, fault)
        return _Update(counts=_counted(counts, entry, end, fault, self.observed), ended=True, fault=fault)

    def _end(self, pod: Object | None) -> Ending | None:
        return POD_LOST if pod is None else pod_ending(pod, container_memory(self.observed))

    def _fault(self, leader: Object, since: datetime | None) -> Fault | None:
        """Return the fault of a peer that ended the leader's attempt; after training only one that failed the Job."""
        found = pod_at_fault(leader, self.pods, since, container_memory(self.observed))
        harmless = found is not None and found.ending.action is not OnExit.FAIL
        return None if harmless and works_alone(leader, self.observed.status.get("progress") or {}) else found

    def _cause_in(self, pod: Object) -> float | None:
        """Return the seconds to await the cause; None where the Job is suspended or finished, and it has no effect."""
        child = self.observed.child
        if child is None or job_suspended(child) or job_finished(child):
            return None
        verdict_in = seconds_to_await_kubelet(pod, self.now)
        if verdict_in is not None or self.observed.spec.resources.nodes == 1:
            return verdict_in
        return seconds_to_await_fault(pod, container_memory(self.observed), self.now)

    def _record_end(self, entry: Object, end: Ending, fault: Fault | None) -> None:
        if end.started_at:
            entry["startedAt"] = end.started_at
        entry["finishedAt"] = end.finished_at or format_time(self.now)
        entry |= {"reason": end.reason, "message": end.message}
        if fault is not None:
            entry |= {"reason": fault.ending.reason, "message": fault.sentence[:_MESSAGE_LIMIT]}
        if end.exit_code is not None:
            entry["exitCode"] = end.exit_code


def _record_start(entry: Object, pod: Object | None, end: Ending | None) -> None:
    """Record in an attempt where and since when its pod runs."""
    if pod is not None and (end is not None or is_running(pod)):
        started = container_state(pod).get("running", {}).get("startedAt")
        values = {"node": pod["spec"].get("nodeName"), "startedAt": started}
        entry |= {key: value for key, value in values.items() if value}


def _leads_alone(pod: Object | None, observed: Observed) -> bool:
    return pod is not None and not pod_ended(pod) and works_alone(pod, observed.status.get("progress") or {})


def _own_pods(observed: Observed) -> list[Object]:
    """Return the training Job's pods."""
    name = child_name(observed.name, observed.uid)
    child_uid = observed.child["metadata"]["uid"] if observed.child else None
    return [pod for pod in observed.pods if _is_owned(pod, name, child_uid)]


def _is_owned(pod: Object, name: str, uid: str | None) -> bool:
    owners = [entry for entry in pod["metadata"].get("ownerReferences", []) if entry.get("controller")]
    return any(entry["kind"] == "Job" and entry["name"] == name and uid in (None, entry["uid"]) for entry in owners)


def _vanished_pods(observed: Observed) -> list[Object] | Need:
    """Return pods of unfinished attempts that only a look-up found, or the first look-up that is left."""
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
    """Return pods without an attempt; pods older than a recorded one had theirs, which left the full list."""
    recorded = {entry["podUID"] for entry in attempts}
    newest = max((i for i, pod in enumerate(pods) if pod["metadata"]["uid"] in recorded), default=-1)
    candidates = pods[newest + 1 :] if counts.total > len(attempts) else pods
    return [pod for pod in candidates if pod["metadata"]["uid"] not in recorded]


def _counted(
    counts: AttemptCounts, entry: Object, end: Ending, fault: Fault | None, observed: Observed
) -> AttemptCounts:
    """Return the totals after one more attempt ended; a pod that a suspension stopped counts as nothing.

    A gang counts once, by the pod at fault; that its last pods are stopped so that all start again is a free restart.
    """
    step = _reached_step(observed, end)
    action = fault.ending.action if fault else end.action
    if fault is None and _stopped_by_suspension(observed):
        action = OnExit.COMPLETE
    ran = seconds_between(entry["startedAt"], entry["finishedAt"]) if "startedAt" in entry else 0.0
    without_progress = 0 if step > counts.last_step else counts.restarts_without_progress + (action is OnExit.IGNORE)
    return counts.model_copy(
        update={
            "failed": counts.failed + (action is OnExit.COUNT),
            "restarts_without_progress": without_progress,
            "running_seconds": counts.running_seconds + int(ran),
            "last_step": max(counts.last_step, step),
        }
    )


def _reached_step(observed: Observed, end: Ending) -> int:
    """Return the highest step that the attempt reported, in its progress or its termination message."""
    reported = int((observed.status.get("progress") or {}).get("step", 0))
    return max(reported, end.termination.step if end.termination else 0)


def _stopped_by_suspension(observed: Observed) -> bool:
    suspended = observed.child is None or job_suspended(observed.child)
    return suspended and not is_gang_restarting(observed)
