"""The same jobs under the same policy without a cluster: the best result if only the hand-over takes time."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import mean, median

from tests.queueing.checks import first_admissions
from tests.queueing.history import Change, Pod, TrainingJob
from trainyard_operator.queue.admission_cycle import admit
from trainyard_operator.queue.inventory import Holder, Inventory
from trainyard_operator.queue.models import Request
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Node, Pool

GPU = "nvidia.com/gpu"
_FRONT = 48
"""Waiting jobs that a simulated cycle considers: strict order stops at the first that does not fit."""
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """Times of one job in seconds: created, admitted, running, ended."""

    gpus: int
    came: float
    admitted: float
    running: float
    ended: float


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """Medians (and means) of the times in which a job holds GPUs without running.

    Attributes:
        start: Seconds from admission to the last pod's running.
        run: Seconds that its pods run.
        end: Seconds from a pod's end to the next admission of any job, for the fastest quarter: after the other ends
            the next job may have waited for more than these GPUs.
        held: Mean seconds from admission to the last pod's end.
    """

    start: float
    run: float
    end: float
    held: float


def measured(changes: Sequence[Change]) -> tuple[list[Ran], HandOver]:
    """Return the times of the jobs of a history that ran once."""
    admitted, came, training = first_admissions(changes), dict[str, float](), dict[str, TrainingJob]()
    pods_over = set[str]()
    running, ended = dict[str, float](), dict[str, float]()
    for change in changes:
        if isinstance(change, TrainingJob):
            came.setdefault(change.uid, change.at)
            training[change.uid] = change
        elif isinstance(change, Pod) and change.job and not change.gone:
            if change.phase == "Running":
                running.setdefault(change.job, change.at)
            elif change.phase == "Succeeded" and change.uid not in pods_over:
                pods_over.add(change.uid)
                ended[change.job] = change.at
    uids = [uid for uid in ended if uid in admitted and uid in running]
    ran = [
        Ran(
            gpus=training[uid].gpus * training[uid].nodes,
            came=came[uid],
            admitted=admitted[uid][0],
            running=running[uid],
            ended=ended[uid],
        )
        for uid in uids
    ]
    moments = sorted(moment for moment, _ in admitted.values())
    given = sorted(moments[at] - job.ended for job in ran if (at := bisect_left(moments, job.ended)) < len(moments))
    hand_over = HandOver(
        start=median(job.running - job.admitted for job in ran),
        run=median(job.ended - job.running for job in ran),
        end=given[len(given) // 4] if given else 0.0,
        held=mean(job.ended - job.admitted for job in ran),
    )
    return ran, hand_over


def run(jobs: Sequence[tuple[float, Request]], nodes: dict[str, int], hand_over: HandOver) -> list[Ran]:
    """Run jobs in strict queue order, placed as the queue places them.

    Args:
        jobs: Creation time in seconds and request of each job.
        nodes: GPUs of each node.
        hand_over: How long each job holds its GPUs, and how long it runs.
    """
    inventory, waiting, ran = Inventory(), list[tuple[Request, float]](), list[Ran]()
    for name, count in nodes.items():
        inventory.put_node(Node(name=name, allocatable={GPU: count}))
    arrivals = sorted(jobs, key=lambda job: job[0], reverse=True)
    ends: list[tuple[float, str, int]] = []
    hold = hand_over.start + hand_over.run + hand_over.end
    while arrivals or ends:
        now = min(arrivals[-1][0] if arrivals else float("inf"), ends[0][0] if ends else float("inf"))
        while arrivals and arrivals[-1][0] <= now:
            came, request = arrivals.pop()
            waiting.append((request, came))
        while ends and ends[0][0] <= now:
            _, uid, pods = heapq.heappop(ends)
            for number in range(pods):
                inventory.put_pod(f"{uid}-{number}", None)
        waiting.sort(key=lambda entry: entry[0].order)
        for request, came in _start(waiting, inventory):
            heapq.heappush(ends, (now + hold, request.uid, request.nodes))
            running = now + hand_over.start
            ran.append(Ran(gpus=request.total, came=came, admitted=now, running=running, ended=running + hand_over.run))
    return ran


def _start(waiting: list[tuple[Request, float]], inventory: Inventory) -> list[tuple[Request, float]]:
    """Admit what fits, in order, and bind its pods."""
    started = []
    while waiting:
        front = {request.uid: (request, came) for request, came in waiting[:_FRONT]}
        found = admit((request for request, _ in front.values()), [], inventory, Policy(), _EPOCH).starts
        for start in found:
            for number, node in enumerate(start.placement):
                pod = f"{start.request.uid}-{number}"
                inventory.put_pod(pod, Holder(pod, pod, node, {GPU: start.request.gpus}))
            started.append(front.pop(start.request.uid))
        gone = {start.request.uid for start in found}
        waiting[:] = [entry for entry in waiting if entry[0].uid not in gone]
        if front or not found:
            break
    return started


def requests(changes: Sequence[Change]) -> list[tuple[float, Request]]:
    """Return the jobs of a history as requests, each with its creation time."""
    came, last = dict[str, float](), dict[str, TrainingJob]()
    for change in changes:
        if isinstance(change, TrainingJob):
            came.setdefault(change.uid, change.at)
            last[change.uid] = change
    return [
        (
            came[job.uid],
            Request(
                uid=job.uid,
                namespace="team",
                pool=Pool(GPU),
                gpus=job.gpus,
                nodes=job.nodes,
                priority=job.priority,
                enqueued_at=datetime.fromisoformat(job.stamp),
            ),
        )
        for job in last.values()
    ]


def use_while_long(ran: Sequence[Ran], gpus: int) -> tuple[float, float]:
    """Return the share of GPUs in use while at least as many were requested, and for how many seconds that was."""
    steps = sorted(
        [(job.came, job.gpus, 0) for job in ran]
        + [(job.admitted, -job.gpus, 0) for job in ran]
        + [(job.running, 0, job.gpus) for job in ran]
        + [(job.ended, 0, -job.gpus) for job in ran]
    )
    wanted = running = 0
    area = long = 0.0
    for (at, more, used), (then, _, _) in pairwise(steps):
        wanted, running = wanted + more, running + used
        if wanted >= gpus:
            area += running * (then - at)
            long += then - at
    return (area / long / gpus if long else 0.0), long
