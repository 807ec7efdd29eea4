"""The pods of a job on several nodes: who leads, whose fault ended them all, who goes on without the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard_crds.exitcodes import ExitCode, OnExit
from trainyard_crds.report import Stage
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, parse_time
from trainyard_operator.trainingjob.children.gang import INDEX_LABEL
from trainyard_operator.trainingjob.k8s_fields import container_state, is_running
from trainyard_operator.trainingjob.pods.pod_termination import ContainerMemory, Ending, disruption, ending

CAUSE_SECONDS = 10
"""How long a fault may be seen after the ends that it caused; its pod's processes may end one after the other."""
_ALONE = (Stage.EXPORTING, Stage.FINISHED)
_CONSEQUENCES = (ExitCode.FINISHED, ExitCode.INTERRUPTED, ExitCode.PEER_LOST)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What went wrong with one pod by itself, not as a consequence.

    Attributes:
        pod: The pod.
        ending: How it ended, or ends.
        moment: When.
    """

    pod: Object
    ending: Ending
    moment: datetime

    @property
    def sentence(self) -> str:
        """Which pod, where, and what happened."""
        node = self.pod["spec"].get("nodeName")
        return f"Pod {self.pod['metadata']['name']}{f' on node {node}' if node else ''}: {self.ending.message}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """The pods of a job on several nodes as they are now.

    Attributes:
        size: How many there are to be.
        running: How many run together, or are done.
        waiting: The first one that does not run yet; None where each that is there does.
        broken: When one ended that others had started with; None where none did.
        left: Pods that go on since then, and that nobody asked to stop.
    """

    size: int
    running: int
    waiting: Object | None
    broken: datetime | None
    left: tuple[Object, ...]

    @property
    def complete(self) -> bool:
        """Whether all run."""
        return self.running >= self.size


def leads(pod: Object) -> bool:
    """Whether a pod speaks for its job: the only one, or that of index 0."""
    return _index(pod) == 0


def is_past(pod: Object, status: Object) -> bool:
    """Whether nothing more will be asked about a peer that is gone: the start it belonged to has been told of."""
    attempts = status.get("attempts") or []
    return not leads(pod) and bool(attempts) and "finishedAt" in attempts[-1]


def works_alone(leader: Object | None, progress: Object) -> bool:
    """Whether a leader is past training: it exports, and the others only wait for its result and may go.

    Args:
        leader: Pod of index 0.
        progress: As it stands in `status.progress`; what an earlier leader reported does not count.
    """
    started = _started(leader) if leader else None
    if started is None or progress.get("stage") not in _ALONE or "updatedAt" not in progress:
        return False
    return parse_time(progress["updatedAt"]) >= started


def group(pods: Sequence[Object], attempts: Iterable[Object], size: int, *, alone: bool = False) -> Group | None:
    """How the pods of a job stand; None for a job on one node.

    Args:
        pods: All that are known, oldest first.
        attempts: Entries of `status.attempts`: what is left of earlier leaders.
        size: Pods the job is to have.
        alone: Whether the newest leader needs no others any more.
    """
    if size == 1:
        return None
    if alone:
        return Group(size=size, running=size, waiting=None, broken=None, left=())
    broken = _broken(pods, attempts)
    left = tuple(pod for pod in pods if _is_left(pod, broken) and "deletionTimestamp" not in pod["metadata"])
    newest = {_index(pod): pod for pod in pods}
    together = [pod for pod in newest.values() if _succeeded(pod) or (is_running(pod) and not _is_left(pod, broken))]
    waiting = (
        newest[index] for index in sorted(newest) if not (_succeeded(newest[index]) or is_running(newest[index]))
    )
    return Group(size=size, running=len(together), waiting=next(waiting, None), broken=broken, left=left)


def cause(leader: Object, pods: Iterable[Object], since: datetime | None, memory: ContainerMemory) -> Fault | None:
    """The fault of another pod for which the leader's start ended, or is about to; None where it was its own.

    Args:
        leader: Pod of index 0.
        pods: All pods of the job.
        since: When the leader before it ended; faults of that group are none of this one.
        memory: Memory limit of the containers, for the advice.
    """
    own, last = fault(leader, memory), _moment(leader)
    end = ending(leader, memory)
    if (end is not None and end.exit_code == 0) or (own is not None and own.ending.action is OnExit.FAIL):
        return None
    found = [
        other
        for pod in pods
        if not leads(pod) and _belongs(pod, last, since) and (other := fault(pod, memory)) and _is_near(other, last)
    ]
    fatal = [other for other in found if other.ending.action is OnExit.FAIL]
    first = min(fatal or found, key=lambda other: other.moment, default=None)
    if first is None or (own is not None and not fatal and own.moment <= first.moment):
        return None
    return first


def fault(pod: Object, memory: ContainerMemory) -> Fault | None:
    """What went wrong with a pod; None where nothing did, or it only followed another one or a request to stop."""
    end, disrupted, moment = ending(pod, memory), disruption(pod), _moment(pod)
    if moment is None:
        return None
    if disrupted is not None and (end is None or end.exit_code != 0):
        leaving = Ending(action=OnExit.IGNORE, reason=disrupted[0], message=disrupted[1])
        return Fault(pod=pod, ending=end or leaving, moment=moment)
    asked = _asked_to_stop(pod)
    if end is None or end.action is OnExit.COMPLETE or end.exit_code in _CONSEQUENCES:
        return None
    if asked is not None and (end.finished_at is None or asked <= parse_time(end.finished_at)):
        return None
    return Fault(pod=pod, ending=end, moment=moment)


def cause_is_near(leader: Object, memory: ContainerMemory, now: datetime) -> float | None:
    """Seconds for which it is worth waiting to hear whose fault it was that the leader lost a peer."""
    end, moment = ending(leader, memory), _moment(leader)
    if end is None or end.exit_code != ExitCode.PEER_LOST or moment is None or disruption(leader):
        return None
    left = CAUSE_SECONDS - (now - moment).total_seconds()
    return left if left > 0 else None


def _broken(pods: Iterable[Object], attempts: Iterable[Object]) -> datetime | None:
    """When the newest group that is known to be broken broke.

    The first end in a group breaks it. Later ends of pods that had started before are part of the same break: a pod
    that was started again meanwhile waits for the next group.
    """
    known = [(moment, started) for pod in pods if (moment := _moment(pod)) and (started := _started(pod))]
    told = [entry for entry in attempts if "finishedAt" in entry and "startedAt" in entry]
    known += [(parse_time(entry["finishedAt"]), parse_time(entry["startedAt"])) for entry in told]
    broken: datetime | None = None
    for moment, started in sorted(known):
        if broken is None or started > broken:
            broken = moment
    return broken


def _is_left(pod: Object, broken: datetime | None) -> bool:
    """Whether a pod goes on though its group is broken."""
    started = _started(pod)
    return is_running(pod) and broken is not None and started is not None and started <= broken


def _belongs(pod: Object, last: datetime | None, since: datetime | None) -> bool:
    """Whether a pod may have been of the group that a leader ended in."""
    metadata, moment = pod["metadata"], _moment(pod)
    if last is not None and parse_time(metadata["creationTimestamp"]) > last:
        return False
    started = _started(pod) or parse_time(metadata["creationTimestamp"])
    return since is None or started > since or (moment is not None and moment > since + _span())


def _is_near(other: Fault, last: datetime | None) -> bool:
    return last is None or other.moment <= last + _span()


def _span() -> timedelta:
    return timedelta(seconds=CAUSE_SECONDS)


def _moment(pod: Object) -> datetime | None:
    """When a pod began to leave its group: disrupted, asked to stop, or ended; None where it goes on or is done."""
    if _succeeded(pod):
        return None
    disrupted = condition(pod, "DisruptionTarget") or {}
    finished = container_state(pod).get("terminated", {}).get("finishedAt")
    times = [parse_time(text) for text in (disrupted.get("lastTransitionTime"), finished) if text]
    asked = _asked_to_stop(pod)
    if asked is not None:
        times.append(asked)
    return min(times, default=None)


def _asked_to_stop(pod: Object) -> datetime | None:
    """When somebody deleted a pod: its timestamp is the end of the grace period."""
    deleted = pod["metadata"].get("deletionTimestamp")
    if deleted is None:
        return None
    return parse_time(deleted) - timedelta(seconds=int(pod["metadata"].get("deletionGracePeriodSeconds") or 0))


def _started(pod: Object) -> datetime | None:
    state = container_state(pod)
    found = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return parse_time(found) if found else None


def _succeeded(pod: Object) -> bool:
    """Whether it is done; its phase says so a moment after its container."""
    phase, code = pod.get("status", {}).get("phase"), container_state(pod).get("terminated", {}).get("exitCode")
    return bool(phase == "Succeeded" or (phase == "Running" and code == ExitCode.FINISHED))


def _index(pod: Object) -> int:
    return int((pod["metadata"].get("labels") or {}).get(INDEX_LABEL, "0"))
