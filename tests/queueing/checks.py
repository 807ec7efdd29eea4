"""What must never be, at any instant of a run. Each check returns sentences; none is the good answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from tests.queueing.history import Change, Job, Node, Pod, TrainingJob
from tests.queueing.replay import ClusterState, replay

SLACK = 1.5
"""Seconds between the clock of this machine and the operator's, which is the API server's and known to a second."""
_IN_FLIGHT = 10.0
"""Seconds from an admission to the Job on a machine that has much to do."""


def overfull_nodes(changes: Iterable[Change]) -> list[str]:
    """Pods that were bound to a node that had no room for them."""
    found, bound = [], set[str]()
    for change, state in replay(changes):
        if not isinstance(change, Pod) or not change.holds or change.uid in bound:
            continue
        bound.add(change.uid)
        node = state.ever.get(change.node)
        room = node.gpus if node else 0
        if state.held[change.node] > room:
            found.append(f"{change.name} made it {state.held[change.node]} of {room} GPUs on {change.node}")
    return found


def over_admissions(changes: Iterable[Change], *, news: float = 0.0) -> list[str]:
    """Jobs that were let in while the GPUs that were left could not hold them.

    Left is what open nodes offer, less what pods hold, less what jobs that were let in before have yet to take. The
    sizes 1, 2 and 8 divide one another, so putting the largest first finds a place for all whenever there is one.

    Args:
        changes: What happened, in order.
        news: Seconds before a decision of which the operator may not know yet that GPUs were lost or taken by others.
    """
    found, admitted = [], set[str]()
    lost = _Losses()
    for change, state in replay(changes):
        lost.look(change)
        if isinstance(change, Job) and change.job in state.training and change.open and change.uid not in admitted:
            admitted.add(change.uid)
            decided = min(change.at, seconds(change.admitted)) if change.admitted else change.at
            if decided - lost.at > news and not fits(state, change):
                found.append(f"{change.name} was let in with {_left(state)} left and {_waiting(state)} to be bound")
        elif isinstance(change, Job) and not change.open:
            admitted.discard(change.uid)
    return found


class _Losses:
    """When GPUs were last lost without the operator's doing."""

    def __init__(self) -> None:
        self.at = float("-inf")
        self._offers: dict[str, tuple[int, object]] = {}
        self._held: set[str] = set()

    def look(self, change: Change) -> None:
        if isinstance(change, Node):
            offer = (0 if change.gone or not change.open else change.gpus, change.labels)
            before = self._offers.get(change.name, (0, change.labels))
            self._offers[change.name] = offer
            if offer[0] < before[0] or offer[1] != before[1]:
                self.at = change.at
        elif isinstance(change, Pod):
            taken = not change.job and change.gpus > 0 and change.holds and change.uid not in self._held
            again = bool(change.job) and change.uid in self._held and not change.holds and change.phase != "Succeeded"
            if change.holds:
                self._held.add(change.uid)
            else:
                self._held.discard(change.uid)
            if taken or again:  # a pod that was lost is made again, on GPUs of the same job
                self.at = change.at


def fits(state: ClusterState, job: Job) -> bool:
    """Whether what a job has yet to take is there, beside what the others have yet to take."""
    training = state.training[job.job]
    if not training.gpus:
        return True
    pods = [
        (state.training[other.job].gpus, other.uid == job.uid, state.training[other.job].selector)
        for other in state.open_jobs.values()
        for _ in range(state.unbound(other))
    ]
    free = state.free()
    views = {selector: list(state.free(json.loads(selector))) for _, _, selector in pods}
    for gpus, own, selector in sorted(pods, key=lambda pod: (-pod[0], pod[1])):
        node = next((name for name in views[selector] if free[name] >= gpus), None)
        if node is not None:
            free[node] -= gpus
        elif own:
            return False
    return True


def _left(state: ClusterState) -> str:
    """How many nodes have how many GPUs left."""
    counts = Counter(count for count in state.free().values() if count)
    return ", ".join(f"{nodes} x {count}" for count, nodes in sorted(counts.items())) or "nothing"


def _waiting(state: ClusterState) -> str:
    """How many pods of how many GPUs have yet to be bound."""
    counts: Counter[int] = Counter()
    for job in state.open_jobs.values():
        if job.job in state.training:
            counts[state.training[job.job].gpus] += state.unbound(job)
    return ", ".join(f"{pods} x {gpus}" for gpus, pods in sorted(counts.items()) if pods)


def ends(changes: Iterable[Change]) -> list[str]:
    """TrainingJobs that did not succeed exactly once with one Job."""
    last: dict[str, TrainingJob] = {}
    jobs: dict[str, set[str]] = {}
    found = []
    for change in changes:
        if isinstance(change, Job):
            jobs.setdefault(change.job, set()).add(change.uid)
        if isinstance(change, TrainingJob):
            before = last.get(change.uid)
            if before is not None and before.ended and change.phase != before.phase:
                found.append(f"{change.name} was {before.phase} and became {change.phase}")
            last[change.uid] = change
    for uid, job in last.items():
        if job.phase != "Succeeded":
            found.append(f"{job.name} ended as {job.phase or 'nothing'}: {job.message}")
        if len(jobs.get(uid, ())) != 1:
            found.append(f"{job.name} had {len(jobs.get(uid, ()))} Jobs")
    return found


def pods_more_than_one(changes: Iterable[Change], *, killed: Iterable[str] = ()) -> list[str]:
    """TrainingJobs that had other pods than one for each of their nodes.

    Args:
        changes: What happened, in order.
        killed: UIDs of pods that the test ended.
    """
    pods: dict[str, set[str]] = {}
    training: dict[str, TrainingJob] = {}
    for change in changes:
        if isinstance(change, Pod) and change.job:
            pods.setdefault(change.job, set()).add(change.uid)
        elif isinstance(change, TrainingJob):
            training[change.uid] = change
    gone = set(killed)
    return [
        f"{job.name} had {len(pods.get(uid, set()) - gone)} pods for {job.nodes} nodes"
        for uid, job in training.items()
        if len(pods.get(uid, set()) - gone) != job.nodes and not (pods.get(uid, set()) & gone)
    ]


def first_admissions(changes: Iterable[Change]) -> dict[str, tuple[float, float]]:
    """When each TrainingJob was let in for the first time: the operator's moment, and when its Job was seen."""
    found: dict[str, tuple[float, float]] = {}
    for change in changes:
        if isinstance(change, Job) and change.admitted and change.job not in found:
            found[change.job] = (seconds(change.admitted), change.at)
    return found


class Overtake(NamedTuple):
    """Two neighbours of one line of which the later was let in first."""

    ahead: str
    behind: str
    ahead_at: float
    behind_at: float


def overtakes(changes: Sequence[Change]) -> list[Overtake]:
    """Neighbours of one priority and pool that were let in the wrong way round.

    A job that was ever told that it exceeds the pool, or that it is tried again later, held nobody up and is left out.
    """
    admitted, last, exempt = first_admissions(changes), dict[str, TrainingJob](), set[str]()
    for change in changes:
        if isinstance(change, TrainingJob):
            last[change.uid] = change
            if change.reason in ("ExceedsCapacity", "BackingOff", "QuotaExceeded"):
                exempt.add(change.uid)
    lines: dict[tuple[int, str], list[TrainingJob]] = {}
    for job in last.values():
        if job.uid in admitted and job.uid not in exempt and job.gpus:
            lines.setdefault((job.priority, job.selector), []).append(job)
    found = []
    for line in lines.values():
        line.sort(key=lambda job: job.stamp)
        for ahead, behind in pairwise(line):
            if admitted[ahead.uid][0] >= admitted[behind.uid][0]:
                found.append(Overtake(ahead.name, behind.name, admitted[ahead.uid][0], admitted[behind.uid][0]))
    return found


def passed_over(changes: Sequence[Change]) -> list[str]:
    """Jobs that were let in while one of higher priority, which had been seen for a while, went on waiting."""
    admitted = first_admissions(changes)
    seen: dict[str, float] = {}
    exempt: set[str] = set()
    last: dict[str, TrainingJob] = {}
    for change in changes:
        if isinstance(change, TrainingJob):
            last[change.uid] = change
            if change.stamp:
                seen.setdefault(change.uid, change.at)
            if change.reason in ("ExceedsCapacity", "BackingOff", "QuotaExceeded"):
                exempt.add(change.uid)
    found = []
    jobs = [job for job in last.values() if job.uid in admitted and job.uid in seen and job.gpus]
    for pool in {job.selector for job in jobs}:
        line = sorted((job for job in jobs if job.selector == pool), key=lambda job: admitted[job.uid][0])
        for priority in {job.priority for job in line}:
            higher = [job for job in line if job.priority > priority and job.uid not in exempt]
            for job in (job for job in line if job.priority == priority):
                moment = admitted[job.uid][0]
                ahead = [one for one in higher if admitted[one.uid][0] > moment and seen[one.uid] < moment - SLACK]
                found += [f"{job.name} passed {one.name} of higher priority" for one in ahead[:1]]
    return found


def unexplained(found: Iterable[Overtake], kills: Sequence[float] = ()) -> list[str]:
    """Overtakes that no kill explains.

    A grant whose Job is not made yet is in the operator's memory only: a kill after the later one's Job was made takes
    the earlier one's place away.
    """
    return [
        f"{each.behind} was let in before {each.ahead}"
        for each in found
        if not any(each.behind_at - SLACK <= kill <= min(each.ahead_at, each.behind_at + _IN_FLIGHT) for kill in kills)
    ]


def seconds(stamp: str) -> float:
    """Unix seconds of an RFC 3339 time."""
    return datetime.fromisoformat(stamp).timestamp()
