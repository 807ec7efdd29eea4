"""The pods of a gang: the leader, the pod at fault when all end, and pods that continue without the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard_crds.exitcodes import ExitCode, OnExit
from trainyard_crds.report import Stage
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, labels, parse_time
from trainyard_operator.trainingjob.children.gang import INDEX_LABEL
from trainyard_operator.trainingjob.k8s_fields import (
    container_state,
    is_being_deleted,
    is_running,
    pod_phase,
    terminated,
)
from trainyard_operator.trainingjob.pods.pod_termination import ContainerMemory, Ending, disruption, pod_ending

CAUSE_SECONDS = 10
"""Seconds for which a fault may be observed after the ends that it caused: processes of a pod end one by one."""
_ALONE = (Stage.EXPORTING, Stage.FINISHED)
_CONSEQUENCES = (ExitCode.FINISHED, ExitCode.INTERRUPTED, ExitCode.PEER_LOST)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failure of one pod that is not the consequence of another.

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
        """Which pod, on which node, and what happened."""
        node = self.pod["spec"].get("nodeName")
        return f"Pod {self.pod['metadata']['name']}{f' on node {node}' if node else ''}: {self.ending.message}"


@dataclass(frozen=True, kw_only=True)
class Gang:
    """State of the pods of a job on several nodes.

    Attributes:
        size: Number of pods it is to have.
        running: Pods that run together, or succeeded.
        waiting: The first pod that does not run yet; None where each existing one does.
        broken: When a pod ended that others had started with; None where none did.
        left: Pods that continue since then, and are not being deleted.
    """

    size: int
    running: int
    waiting: Object | None
    broken: datetime | None
    left: tuple[Object, ...]

    @property
    def complete(self) -> bool:
        """Whether all pods run."""
        return self.running >= self.size


def is_leader(pod: Object) -> bool:
    """Return whether a pod represents its job: the only one, or that of index 0."""
    return _index(pod) == 0


def is_recorded(pod: Object, status: Object) -> bool:
    """Return whether a status records the end of a pod, or of the attempt to which a peer belonged."""
    attempts = status.get("attempts") or []
    if is_leader(pod):
        return any(entry["podUID"] == pod["metadata"]["uid"] and "finishedAt" in entry for entry in attempts)
    return bool(attempts) and "finishedAt" in attempts[-1]


def works_alone(leader: Object | None, progress: Object) -> bool:
    """Return whether a leader is past training: it exports, and its peers may end.

    Args:
        leader: Pod of index 0.
        progress: `status.progress`; what an earlier leader reported does not count.
    """
    started = _started(leader) if leader else None
    if started is None or progress.get("stage") not in _ALONE or "updatedAt" not in progress:
        return False
    return parse_time(progress["updatedAt"]) >= started


def gang_of(pods: Sequence[Object], attempts: Iterable[Object], size: int, *, alone: bool = False) -> Gang | None:
    """Return the state of a gang; None for a job on one node.

    Args:
        pods: All that are known, oldest first.
        attempts: Entries of `status.attempts`: what is left of earlier leaders.
        size: Number of pods the job is to have.
        alone: Whether the newest leader no longer needs its peers.
    """
    if size == 1:
        return None
    if alone:
        return Gang(size=size, running=size, waiting=None, broken=None, left=())
    broken = _broken_since(pods, attempts)
    by_index = {_index(pod): pod for pod in pods}
    newest = [by_index[index] for index in sorted(by_index)]
    return Gang(
        size=size,
        running=sum(_is_together(pod, broken) for pod in newest),
        waiting=next((pod for pod in newest if not (_succeeded(pod) or is_running(pod))), None),
        broken=broken,
        left=tuple(pod for pod in pods if _is_left(pod, broken) and not is_being_deleted(pod)),
    )


def pod_at_fault(
    leader: Object, pods: Iterable[Object], since: datetime | None, memory: ContainerMemory
) -> Fault | None:
    """Return the fault of a peer for which the leader's attempt ended, or is about to; None where it was its own.

    Args:
        leader: Pod of index 0.
        pods: All pods of the job.
        since: When the leader before it ended; faults of that gang do not count.
        memory: Memory of the containers, for the advice.
    """
    end, own = pod_ending(leader, memory), fault_of(leader, memory)
    leader_finished = end is not None and end.exit_code == 0
    if leader_finished or _is_fatal(own):
        return None
    found = _peer_faults(leader, pods, since, memory)
    first = min(filter(_is_fatal, found), key=_moment, default=None) or min(found, key=_moment, default=None)
    if first is None or own is None:
        return first
    leader_was_first = own.moment <= first.moment and not _is_fatal(first)
    return None if leader_was_first else first


def fault_of(pod: Object, memory: ContainerMemory) -> Fault | None:
    """Return the fault of a pod; None where it only followed another one or a request to stop."""
    end, disrupted, moment = pod_ending(pod, memory), disruption(pod), _left_at(pod)
    if moment is None:
        return None
    if disrupted is not None and (end is None or end.exit_code != 0):
        leaving = Ending(action=OnExit.IGNORE, reason=disrupted[0], message=disrupted[1])
        return Fault(pod=pod, ending=end or leaving, moment=moment)
    if end is None or end.action is OnExit.COMPLETE:
        return None
    if end.exit_code in _CONSEQUENCES and end.action is not OnExit.COUNT:
        return None
    return None if _ended_on_request(pod, end) else Fault(pod=pod, ending=end, moment=moment)


def seconds_to_await_fault(leader: Object, memory: ContainerMemory, now: datetime) -> float | None:
    """Return the seconds for which the fault is awaited that made the leader lose a peer; None where it is not."""
    end, moment = pod_ending(leader, memory), _left_at(leader)
    lost_a_peer = end is not None and end.exit_code == ExitCode.PEER_LOST
    if not lost_a_peer or moment is None or disruption(leader):
        return None
    left = CAUSE_SECONDS - (now - moment).total_seconds()
    return left if left > 0 else None


def _peer_faults(
    leader: Object, pods: Iterable[Object], since: datetime | None, memory: ContainerMemory
) -> list[Fault]:
    """Return the faults of peers in the gang of a leader, up to CAUSE_SECONDS after its end."""
    last = _left_at(leader)
    latest = None if last is None else last + _span()
    peers = [pod for pod in pods if not is_leader(pod) and _belongs(pod, last, since)]
    faults = [fault for pod in peers if (fault := fault_of(pod, memory))]
    return [fault for fault in faults if latest is None or fault.moment <= latest]


def _is_fatal(fault: Fault | None) -> bool:
    """Return whether a fault fails the Job at once."""
    return fault is not None and fault.ending.action is OnExit.FAIL


def _moment(fault: Fault) -> datetime:
    return fault.moment


def _ended_on_request(pod: Object, end: Ending) -> bool:
    """Return whether a pod was deleted before it ended."""
    requested = _deleted_at(pod)
    return requested is not None and (end.finished_at is None or requested <= parse_time(end.finished_at))


def _broken_since(pods: Iterable[Object], attempts: Iterable[Object]) -> datetime | None:
    """Return when the newest broken gang broke.

    The first end in a gang breaks it. Later ends of pods that had started before belong to the same break: a pod that
    was started again meanwhile waits for the next gang.
    """
    known = [(moment, started) for pod in pods if (moment := _left_at(pod)) and (started := _started(pod))]
    recorded = [entry for entry in attempts if "finishedAt" in entry and "startedAt" in entry]
    known += [(parse_time(entry["finishedAt"]), parse_time(entry["startedAt"])) for entry in recorded]
    broken: datetime | None = None
    for moment, started in sorted(known):
        if broken is None or started > broken:
            broken = moment
    return broken


def _is_left(pod: Object, broken: datetime | None) -> bool:
    """Return whether a pod continues though its gang is broken."""
    started = _started(pod)
    return is_running(pod) and broken is not None and started is not None and started <= broken


def _belongs(pod: Object, last: datetime | None, since: datetime | None) -> bool:
    """Return whether a pod can have been in the gang in which a leader ended."""
    created, left = parse_time(pod["metadata"]["creationTimestamp"]), _left_at(pod)
    if last is not None and created > last:
        return False
    if since is None or (_started(pod) or created) > since:
        return True
    return left is not None and left > since + _span()


def _span() -> timedelta:
    return timedelta(seconds=CAUSE_SECONDS)


def _left_at(pod: Object) -> datetime | None:
    """Return when a pod began to leave its gang: disrupted, deleted or ended; None where it continues or succeeded."""
    if _succeeded(pod):
        return None
    disrupted = condition(pod, "DisruptionTarget") or {}
    texts = (disrupted.get("lastTransitionTime"), terminated(pod).get("finishedAt"))
    times = [parse_time(text) for text in texts if text]
    deleted = _deleted_at(pod)
    return min([*times, deleted] if deleted else times, default=None)


def _deleted_at(pod: Object) -> datetime | None:
    """Return when a pod was deleted: its timestamp is the end of the grace period."""
    deleted = pod["metadata"].get("deletionTimestamp")
    if deleted is None:
        return None
    return parse_time(deleted) - timedelta(seconds=int(pod["metadata"].get("deletionGracePeriodSeconds") or 0))


def _started(pod: Object) -> datetime | None:
    state = container_state(pod)
    found = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return parse_time(found) if found else None


def _succeeded(pod: Object) -> bool:
    """Return whether a pod succeeded; its phase follows its container a moment later."""
    phase = pod_phase(pod)
    return phase == "Succeeded" or (phase == "Running" and terminated(pod).get("exitCode") == ExitCode.FINISHED)


def _is_together(pod: Object, broken: datetime | None) -> bool:
    """Return whether a pod runs with its gang, or succeeded."""
    return _succeeded(pod) or (is_running(pod) and not _is_left(pod, broken))


def _index(pod: Object) -> int:
    return int(labels(pod).get(INDEX_LABEL, "0"))
