"""Admission cycles against naive references, also simulated through time."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.operator.queue.state_model import GPU, NOW, hold, make_admitted, make_request, nodes, quota, quotas
from trainyard_operator.queue.admission_cycle import admit
from trainyard_operator.queue.elastic import ElasticPool
from trainyard_operator.queue.inventory import Holder, Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Node, Pool

EVERY, RED = Pool(GPU), Pool(GPU, (("color", "red"),))
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@dataclass
class Cluster:
    """Nodes, the first of them red, with what is held on each."""

    sizes: list[int]
    closed: set[int]
    held: dict[str, int] = field(default_factory=dict)
    most: int = 0

    @property
    def growth(self) -> dict[str, int]:
        """GPUs of the nodes that can still be added; they are not red."""
        return {f"+more-{number}": 4 for number in range(len(self.sizes) + 1, self.most + 1)}

    @property
    def elastic(self) -> tuple[ElasticPool, ...]:
        pool = ElasticPool(name="more", gpu_resource=GPU, max_nodes=self.most, gpus_per_node=4, start_seconds=9)
        return (pool,) if self.most else ()

    def inventory(self) -> Inventory:
        made = Inventory()
        for number, size in enumerate(self.sizes):
            labels = {"color": "red"} if number == 0 else {}
            made.put_node(
                Node(
                    name=f"n{number}",
                    labels=labels,
                    closed="cordoned" if number in self.closed else "",
                    allocatable={GPU: size},
                )
            )
        for node, count in self.held.items():
            hold(made, f"foreign-{node}", node, count)
        return made

    def names(self, pool: Pool, *, closed: bool) -> list[str]:
        numbers = range(len(self.sizes)) if pool == EVERY else range(1)
        existing = [f"n{number}" for number in numbers if closed or number not in self.closed]
        return existing + (list(self.growth) if pool == EVERY else [])


CLUSTERS = st.builds(
    lambda sizes, closed, held, most: Cluster(
        sizes, closed, {f"n{i}": min(h, sizes[i]) for i, h in enumerate(held[: len(sizes)])}, most
    ),
    SIZES,
    st.sets(st.integers(0, 3), max_size=2),
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
    st.sampled_from([0, 0, 2, 5]),
)


@st.composite
def requests(draw: st.DrawFn, most: int = 10) -> list[Request]:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 6),
                st.integers(1, 3),
                st.integers(0, 2),
                st.integers(0, 3),
                st.sampled_from([EVERY, RED]),
                st.sampled_from(["a", "b"]),
                st.sampled_from([None, None, None, -1, 60]),
            ),
            max_size=most,
        )
    )
    return [
        make_request(
            f"j{i}",
            gpus,
            count,
            priority=priority,
            at=at,
            pool=pool,
            namespace=namespace,
            not_before=None if later is None else NOW + dt.timedelta(seconds=later),
        )
        for i, (gpus, count, priority, at, pool, namespace, later) in enumerate(rows)
    ]


def naive_cycle(
    waiting: list[Request], cluster: Cluster, policy: Policy, hard: int | None
) -> tuple[list[str], dict[str, str]]:
    """Return the jobs that start and the reasons of the others, by one plain loop over the queue."""
    left = {f"n{i}": size - cluster.held.get(f"n{i}", 0) for i, size in enumerate(cluster.sizes)} | cluster.growth
    used, blocked, started, why = Counter[str](), set[Pool](), list[str](), dict[str, str]()
    for job in sorted(waiting, key=lambda one: (-one.priority, one.enqueued_at, one.uid)):
        size = {f"n{i}": count for i, count in enumerate(cluster.sizes)} | cluster.growth
        ever = sum(size[node] // job.gpus for node in cluster.names(job.pool, closed=True)) if job.gpus else job.nodes
        cap = policy.namespace_gpus.get(job.namespace, policy.default_namespace_gpus)
        if ever < job.nodes:
            why[job.uid] = "ExceedsCapacity"
        elif policy.held:
            why[job.uid] = "QueueHeld"
        elif job.namespace == "b" and hard is not None and job.gpus and used["b"] + job.gpus * job.nodes > hard:
            why[job.uid] = "QuotaExceeded"
        elif job.not_before is not None and job.not_before > NOW:
            why[job.uid] = "BackingOff"
        elif cap is not None and used[job.namespace] + job.gpus * job.nodes > cap:
            why[job.uid] = "NamespaceCapReached"
        elif job.pool in blocked:
            why[job.uid] = "WaitingForTurn"
        else:
            trial = dict(left)
            for _ in range(job.nodes if job.gpus else 0):
                fit = [node for node in cluster.names(job.pool, closed=False) if trial[node] >= job.gpus]
                if not fit:
                    blocked.add(job.pool)
                    why[job.uid] = "WaitingForGpus"
                    break
                trial[min(fit, key=lambda node: (node in cluster.growth, trial[node], node))] -= job.gpus
            else:
                left = trial
                used[job.namespace] += job.gpus * job.nodes
                started.append(job.uid)
    return started, why


@given(
    requests(),
    CLUSTERS,
    st.booleans(),
    st.tuples(st.sampled_from([None, 2, 5]), st.sampled_from([{}, {"a": 3}]), st.sampled_from([None, None, 0, 3, 8])),
)
@settings(max_examples=400)
def test_strict_cycle_matches_a_naive_reference(
    waiting: list[Request], cluster: Cluster, held: bool, limits: tuple[int | None, dict[str, int], int | None]
) -> None:
    cap, caps, hard = limits
    policy = Policy(held=held, namespace_gpus=caps, default_namespace_gpus=cap, elastic_pools=cluster.elastic)
    quota_of_b = [] if hard is None else [quota({f"requests.{GPU}": str(hard)}, namespace="b")]
    found = admit(waiting, [], cluster.inventory(), policy, NOW, quotas=quotas(*quota_of_b))
    started, why = naive_cycle(waiting, cluster, policy, hard)
    assert [start.request.uid for start in found.starts] == started
    assert {uid: reason.code for uid, reason in found.reasons.items()} == why


@given(requests(), CLUSTERS, st.lists(st.booleans(), min_size=30, max_size=30), st.booleans())
@settings(max_examples=200)
def test_late_pods_keep_their_gpus(waiting: list[Request], cluster: Cluster, comes: list[bool], backfill: bool) -> None:
    """GPUs are never admitted twice while only some pods are bound."""
    inventory, running, given = cluster.inventory(), list[Admitted](), list[tuple[str, int]]()
    arrives, policy = iter(comes), Policy(backfill=backfill, elastic_pools=cluster.elastic)
    for job in sorted(waiting, key=lambda one: one.uid):
        for start in admit([job], running, inventory, policy, NOW).starts:
            running.append(make_admitted(start.request, *start.placement))
            for number, node in enumerate(start.placement if start.request.gpus else ()):
                given.append((node, start.request.gpus))
                if next(arrives) and node not in cluster.growth:
                    inventory.put_pod(f"{start.request.uid}-{number}", _pod(start.request, number, node))
    for number, size in enumerate(cluster.sizes):
        total = sum(gpus for node, gpus in given if node == f"n{number}") + cluster.held.get(f"n{number}", 0)
        assert total <= size
    # A pod that waits for a new node takes a free GPU of an existing one before: only the sum is bounded.
    size = sum(cluster.sizes) - sum(cluster.held.values()) + sum(cluster.growth.values())
    assert sum(gpus for _, gpus in given) <= size, "never more than there is with the declared growth"


def _pod(request: Request, number: int, node: str) -> Holder:
    name = f"{request.uid}-{number}"
    return Holder(name, name, node, {GPU: request.gpus}, request.owner)


ROWS = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 1, 2, 3, 4]),
        st.sampled_from([1, 1, 1, 2]),
        st.sampled_from([10, 20, 60]),
        st.sampled_from([60, 60, 60, 5, 15]),
    ),
    min_size=4,
    max_size=9,
)
"""GPUs, pods, time limit in seconds, and actual duration."""


@example(rows=[(3, 1, 20, 60), (4, 1, 10, 60), (1, 1, 60, 60), (1, 1, 60, 60)], sizes=[5])
@given(ROWS, st.lists(st.sampled_from([4, 5, 6]), min_size=1, max_size=2))
@settings(max_examples=300)
def test_backfill_never_delays_a_reservation(rows: list[tuple[int, int, int, int]], sizes: list[int]) -> None:
    """EASY's guarantee, simulated: jobs run for any time up to their limit, gangs included.

    The reservation is found by trying every moment at which the limit of a running job ends.
    """
    waiting = [
        make_request(f"j{i}", gpus, count, at=i, time_limit=float(limit))
        for i, (gpus, count, limit, _) in enumerate(rows)
    ]
    takes = {f"j{i}": float(min(limit, took)) for i, (_, _, limit, took) in enumerate(rows)}
    inventory, running = nodes(*sizes), dict[str, tuple[Request, tuple[str, ...], float]]()
    now, reserved, passed = 0.0, dict[str, float](), 0
    while True:
        admitted = [
            make_admitted(request, *placement, time_limit=(request.time_limit or 0.0) - (now - since))
            for request, placement, since in running.values()
        ]
        found = admit(waiting, admitted, inventory, Policy(backfill=True), NOW)
        for start in found.starts:
            running[start.request.uid] = (start.request, start.placement, now)
            for number, node in enumerate(start.placement):
                inventory.put_pod(f"{start.request.uid}-{number}", _pod(start.request, number, node))
            passed += start.backfilled
            assert now <= reserved.get(start.request.uid, now), (
                f"{start.request.uid} started later than its reservation"
            )
        gone = {start.request.uid for start in found.starts}
        waiting = [job for job in waiting if job.uid not in gone]
        head = next((job for job in waiting if found.reasons[job.uid].code == "WaitingForGpus"), None)
        if head is not None:
            before = {
                uid: entry
                for uid, entry in running.items()
                if uid not in {s.request.uid for s in found.starts if s.backfilled}
            }
            reserved.setdefault(head.uid, now + _reservation(head, sizes, before, now))
        if not running:
            break
        now = min(since + takes[uid] for uid, (_, _, since) in running.items())
        for uid in [uid for uid, (_, _, since) in running.items() if since + takes[uid] <= now]:
            request, _, _ = running.pop(uid)
            for number in range(request.nodes):
                inventory.put_pod(f"{uid}-{number}", None)
    assert all(reason.code == "ExceedsCapacity" for reason in found.reasons.values()), "every job that fits has run"


def _reservation(
    head: Request, sizes: list[int], running: dict[str, tuple[Request, tuple[str, ...], float]], now: float
) -> float:
    ends = {uid: since + (request.time_limit or 0.0) - now for uid, (request, _, since) in running.items()}
    for moment in sorted({0.0, *ends.values()}):
        free = {f"n{i}": size for i, size in enumerate(sizes)}
        for uid, (request, placement, _) in running.items():
            for node in placement if ends[uid] > moment else ():
                free[node] -= request.gpus
        if sum(count // head.gpus for count in free.values()) >= head.nodes:
            return moment
    return float("inf")


VICTIMS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(0, 3), st.booleans()), min_size=1, max_size=6
)


def _busy(rows: list[tuple[int, int, int, bool]], sizes: list[int]) -> tuple[Inventory, list[Admitted]]:
    """Nodes with as many of the jobs as fit: GPUs of a pod, pods, priority, whether it is releasing."""
    inventory, running = nodes(*sizes), list[Admitted]()
    for number, (size, pods, own, leaving) in enumerate(rows):
        job = make_request(f"j{number}", size, pods, priority=own)
        for start in admit([job], running, inventory, Policy(), NOW).starts:
            for pod, node in enumerate(start.placement):
                inventory.put_pod(f"j{number}-{pod}", _pod(job, pod, node))
            running.append(make_admitted(job, *start.placement, admitted_at=number, releasing=leaving))
    return inventory, running


@given(VICTIMS, SIZES, st.integers(1, 6), st.integers(1, 2), st.integers(0, 4))
@settings(max_examples=400)
def test_victims_match_exhaustive_search(
    rows: list[tuple[int, int, int, bool]], sizes: list[int], gpus: int, count: int, priority: int
) -> None:
    """Only strictly lower priority, no superfluous victims, and the lowest possible highest priority."""
    inventory, running = _busy(rows, sizes)
    head = make_request("head", gpus, count, priority=priority)
    found = admit([head], running, inventory, Policy(preemption=True), NOW)

    def enough(gone: set[str]) -> bool:
        free = {f"n{i}": size for i, size in enumerate(sizes)}
        for job in running:
            for node in () if job.request.uid in gone else job.placement:
                free[node] -= job.request.gpus
        return sum(left // gpus for left in free.values()) >= count

    going = {job.request.uid for job in running if job.releasing}
    lower = {job.request.uid: job.request.priority for job in running if job.request.priority < priority}
    stay = [uid for uid in lower if uid not in going]
    ways = [set(way) for size in range(len(stay) + 1) for way in combinations(stay, size) if enough(going | set(way))]
    chosen = set(found.preempt)
    fits_now = any(start.request.uid == "head" for start in found.starts)
    if fits_now or not ways or set() in ways:
        assert not chosen
        return
    if found.reasons["head"].code == "ExceedsCapacity":
        assert not chosen
        return
    assert chosen in ways
    assert not any(way < chosen for way in ways), "no victim is superfluous"
    least = min(max(lower[uid] for uid in way) for way in ways)
    assert max(lower[uid] for uid in chosen) == least
    alike = {job.request.uid: job for job in running if job.request.uid in stay}
    for uid in chosen:
        twins = [
            other
            for other, job in alike.items()
            if other not in chosen
            and (job.request.gpus, job.request.nodes, job.request.priority, job.placement)
            == (alike[uid].request.gpus, alike[uid].request.nodes, lower[uid], alike[uid].placement)
        ]
        assert all(alike[twin].admitted_at < alike[uid].admitted_at for twin in twins), (
            "of two equal jobs the younger is preempted"
        )


@given(VICTIMS, SIZES, st.sampled_from(["held", "cap", "later", "refused"]))
@settings(max_examples=60)
def test_inadmissible_job_preempts_nothing(rows: list[tuple[int, int, int, bool]], sizes: list[int], why: str) -> None:
    inventory, running = _busy([(*row[:3], False) for row in rows], sizes)
    head = make_request(
        "head",
        max(sizes),
        priority=9,
        namespace="other",
        not_before=NOW + dt.timedelta(seconds=1) if why == "later" else None,
    )
    policy = Policy(preemption=True, held=why == "held", namespace_gpus={"other": 0} if why == "cap" else {})
    full = quotas(*[quota({"pods": "0"}, namespace="other")] if why == "refused" else [])
    assert not admit([head], running, inventory, policy, NOW, quotas=full).preempt
