"""Invariants of a run at every instant. Each check returns a sentence per violation."""

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
"""Tolerated seconds between this machine's clock and the operator's, which follows the API server's to a second."""
_IN_FLIGHT = 10.0
"""Seconds from an admission to its Job on a busy machine."""


def overfull_nodes(changes: Iterable[Change]) -> list[str]:
    """Return the pods that were bound to a node with too few free GPUs."""
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


def over_admissions(changes: Iterable[Change], *, lag: float = 0.0) -> list[str]:
    """Return the jobs that were admitted without enough free GPUs.

    Free are the GPUs of schedulable nodes, less those that pods hold, less those that earlier admitted jobs have yet to
    take. The sizes 1, 2 and 8 divide one another, so placing the largest first finds a placement whenever one exists.

    Args:
        changes: All changes, in order.
        lag: Seconds before a decision in which the operator may miss that GPUs were lost or taken by foreign pods.
    """
    found, admitted = [], set[str]()
    lost = _Losses()
    for change, state in replay(changes):
        lost.observe(change)
        if isinstance(change, Job) and change.job in state.training and change.open and change.uid not in admitted:
            admitted.add(change.uid)
            decided = min(change.at, seconds(change.admitted)) if change.admitted else change.at
            if decided - lost.at > lag and not fits(state, change):
                found.append(f"{change.name} was admitted with {_left(state)} free and {_waiting(state)} to be bound")
        elif isinstance(change, Job) and not change.open:
            admitted.discard(change.uid)
    return found


class _Losses:
    """When GPUs were last lost independently of the operator."""

    def __init__(self) -> None:
        self.at = float("-inf")
        self._offers: dict[str, tuple[int, object]] = {}
        self._held: set[str] = set()

    def observe(self, change: Change) -> None:
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
            if taken or again:  # a lost pod is replaced on GPUs of the same job
                self.at = change.at


def fits(state: ClusterState, job: Job) -> bool:
    """Return whether the unbound pods of a job fit, beside those of the other admitted jobs."""
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
    """Count the nodes by free GPUs."""
    counts = Counter(count for count in state.free().values() if count)
    return ", ".join(f"{nodes} x {count}" for count, nodes in sorted(counts.items())) or "nothing"


def _waiting(state: ClusterState) -> str:
    """Count the unbound pods by GPUs."""
    counts: Counter[int] = Counter()
    for job in state.open_jobs.values():
        if job.job in state.training:
            counts[state.training[job.job].gpus] += state.unbound(job)
    return ", ".join(f"{pods} x {gpus}" for gpus, pods in sorted(counts.items()) if pods)


def ends(changes: Iterable[Change]) -> list[str]:
    """Return the TrainingJobs that did not succeed exactly once with one Job."""
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
    """Return the TrainingJobs that had not exactly one pod per node.

    Args:
        changes: All changes, in order.
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
    """Return when each TrainingJob was first admitted: the operator's time, and when its Job was observed."""
    found: dict[str, tuple[float, float]] = {}
    for change in changes:
        if isinstance(change, Job) and change.admitted and change.job not in found:
            found[change.job] = (seconds(change.admitted), change.at)
    return found


class Overtake(NamedTuple):
    """Two neighbours of one queue of which the later was admitted first."""

    ahead: str
    behind: str
    ahead_at: float
    behind_at: float


def overtakes(changes: Sequence[Change]) -> list[Overtake]:
    """Return neighbours of one priority and pool that were admitted in the wrong order.

    Jobs that ever exceeded the capacity or a quota, or backed off, block no other job and are skipped.
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
    """Return jobs that were admitted while one of higher priority, enqueued before, kept waiting."""
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
    """Return the overtakes that no kill explains.

    A grant without a Job exists only in the operator's memory: a kill after the Job of the later one was created loses
    the grant of the earlier one.
    """
    return [
        f"{each.behind} was admitted before {each.ahead}"
        for each in found
        if not any(each.behind_at - SLACK <= kill <= min(each.ahead_at, each.behind_at + _IN_FLIGHT) for kill in kills)
    ]


def seconds(stamp: str) -> float:
    """Return the Unix seconds of an RFC 3339 time."""
    return datetime.fromisoformat(stamp).timestamp()
