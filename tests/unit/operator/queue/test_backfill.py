from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.queue.state_model import NOW, hold, make_admitted, make_request, nodes
from trainyard_operator.queue.admission_cycle import admit
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.policy import Policy

BACKFILL = Policy(backfill=True)


def busy() -> tuple[Inventory, list[Admitted]]:
    """One node of 8; a job of 4 ends within 100 s."""
    inventory = nodes(8)
    hold(inventory, "pod", "n0", 4, job="r")
    return inventory, [make_admitted(make_request("r", 4), "n0", time_limit=100)]


def passed(*behind: Request) -> list[str]:
    inventory, running = busy()
    found = admit([make_request("head", 8), *behind], running, inventory, BACKFILL, NOW)
    return [start.request.uid for start in found.starts if start.backfilled]


def test_job_that_ends_before_the_reservation_passes() -> None:
    assert passed(make_request("short", 4, at=1, time_limit=100)) == ["short"]


def test_job_that_could_delay_the_head_does_not_pass() -> None:
    assert passed(make_request("long", 4, at=1, time_limit=101)) == []
    assert passed(make_request("endless", 4, at=1)) == []


def test_long_job_passes_if_the_head_fits_beside_it() -> None:
    inventory = nodes(8, 2)
    hold(inventory, "pod", "n0", 4, job="r")
    found = admit(
        [
            make_request("head", 8),
            make_request("long", 2, at=1, time_limit=9999),
            make_request("second", 2, at=2, time_limit=9999),
        ],
        [make_admitted(make_request("r", 4), "n0", time_limit=100)],
        inventory,
        BACKFILL,
        NOW,
    )
    assert [start.request.uid for start in found.starts] == ["long"], "the node the head cannot use is free for all"


def test_reservation_accounts_for_jobs_that_passed() -> None:
    inventory, running = busy()
    behind = [make_request(f"long-{i}", 2, at=1 + i, time_limit=9999) for i in range(2)]
    found = admit([make_request("head", 6), *behind], running, inventory, BACKFILL, NOW)
    assert [start.request.uid for start in found.starts] == ["long-0"], "beside both the head would not fit any more"


def test_no_job_passes_a_head_without_a_reservation() -> None:
    inventory = nodes(8)
    hold(inventory, "pod", "n0", 4, job="r")
    found = admit(
        [make_request("head", 8), make_request("s", at=1, time_limit=1)],
        [make_admitted(make_request("r", 4), "n0")],
        inventory,
        BACKFILL,
        NOW,
    )
    assert not found.starts


ROWS = st.tuples(st.integers(1, 4), st.integers(1, 100))


@given(
    st.lists(ROWS, min_size=1, max_size=6),
    st.lists(ROWS, max_size=8),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
@settings(max_examples=120)
def test_backfill_does_not_delay_the_head(
    before: list[tuple[int, int]], behind: list[tuple[int, int]], sizes: list[int]
) -> None:
    """Played to its end with every job taking its whole limit: the bound that EASY promises."""
    first = admit([make_request(f"r{i}", g, at=i) for i, (g, _) in enumerate(before)], [], nodes(*sizes), Policy(), NOW)
    inventory, running = nodes(*sizes), list[Admitted]()
    for start in first.starts:
        limit = float(before[int(start.request.uid[1:])][1])
        hold(inventory, start.request.uid, start.placement[0], start.request.gpus, job=start.request.uid)
        running.append(make_admitted(start.request, *start.placement, time_limit=limit))
    head = make_request("head", max(sizes))
    queue = [make_request(f"b{i}", g, at=1 + i, time_limit=float(s)) for i, (g, s) in enumerate(behind)]
    outcome = admit([head, *queue], running, inventory, BACKFILL, NOW)
    if "head" not in outcome.reasons:
        return  # it fitted
    limits = {job.request.uid: job.time_limit for job in running}
    placed = {job.request.uid: (job.placement[0], job.request.gpus) for job in running}
    alone = head_start(sizes, placed, limits, max(sizes))
    for start in outcome.starts:
        placed[start.request.uid] = (start.placement[0], start.request.gpus)
        limits[start.request.uid] = start.request.time_limit
    assert head_start(sizes, placed, limits, max(sizes)) <= alone


def head_start(
    sizes: list[int], placed: dict[str, tuple[str, int]], limits: dict[str, float | None], gpus: int
) -> float:
    """The first moment at which one node has enough, by trying every moment at which something ends."""
    for moment in sorted({0.0, *(limit for limit in limits.values() if limit is not None)}):
        free = {f"n{i}": size for i, size in enumerate(sizes)}
        for uid, (node, count) in placed.items():
            limit = limits[uid]
            if limit is None or limit > moment:
                free[node] -= count
        if max(free.values()) >= gpus:
            return moment
    return float("inf")
