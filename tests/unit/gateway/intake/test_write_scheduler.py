from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_gateway.intake.write_scheduler import Outcome, WriteScheduler

Scheduler = WriteScheduler[str, int]


def write(scheduler: Scheduler, now: float, outcome: Outcome = Outcome.WRITTEN) -> tuple[str, int] | None:
    due = scheduler.next(now)
    if due is not None:
        scheduler.start(due[0], now)
        scheduler.finish(due[0], now, outcome)
    return due


def test_first_update_is_due_immediately_and_the_next_after_the_interval() -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    assert write(scheduler, 100.0) == ("a", 1)
    scheduler.offer("a", 2, "Training")
    assert scheduler.next(109.9) is None
    assert scheduler.delay(105.0) == pytest.approx(5.0)
    assert write(scheduler, 110.0) == ("a", 2)
    assert scheduler.delay(110.0) is None


def test_overdue_counts_updates_that_wait_for_the_rate_only() -> None:
    scheduler = Scheduler()
    for key in ("a", "b", "c"):
        scheduler.offer(key, 0, "Training")
    assert scheduler.overdue(0.0) == 3
    write(scheduler, 0.0)
    scheduler.offer("a", 1, "Training")
    assert scheduler.overdue(0.0) == 2
    assert scheduler.overdue(10.0) == 3


def test_retried_update_is_overdue_until_written() -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    write(scheduler, 0.0, Outcome.RETRY)
    assert scheduler.overdue(0.1) == 1
    write(scheduler, 1.0)
    assert scheduler.overdue(60.0) == 0


def test_only_the_newest_update_is_kept() -> None:
    scheduler = Scheduler()
    for number in range(5):
        scheduler.offer("a", number, "Training")
    assert write(scheduler, 0.0) == ("a", 4)
    assert scheduler.next(60.0) is None


def test_stage_change_precedes_older_updates_within_the_interval() -> None:
    scheduler = Scheduler()
    for key in ("a", "b"):
        scheduler.offer(key, 0, "Training")
    assert {write(scheduler, 0.0), write(scheduler, 0.1)} == {("a", 0), ("b", 0)}
    scheduler.offer("a", 1, "Training")
    scheduler.offer("b", 1, "Saving")
    assert scheduler.next(9.9) is None
    assert write(scheduler, 10.2) == ("b", 1)
    assert write(scheduler, 10.3) == ("a", 1)


def test_rate_applies_to_all_jobs() -> None:
    scheduler = Scheduler()
    for number in range(30):
        scheduler.offer(str(number), number, "Training")
    written = [now / 100 for now in range(100) if write(scheduler, now / 100)]
    assert len(written) in (19, 20)  # the clock's steps do not match every slot


def test_one_write_in_flight_per_job() -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    scheduler.start("a", 0.0)
    scheduler.offer("a", 2, "Training")
    assert scheduler.next(100.0) is None
    assert scheduler.delay(100.0) is None
    scheduler.finish("a", 100.0, Outcome.WRITTEN)
    assert scheduler.next(100.0) == ("a", 2)


@pytest.mark.parametrize(("newer", "expected"), [(False, 1), (True, 2)])
def test_failed_write_is_retried_unless_replaced(newer: bool, expected: int) -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    scheduler.start("a", 0.0)
    if newer:
        scheduler.offer("a", 2, "Training")
    scheduler.finish("a", 0.0, Outcome.RETRY)
    assert scheduler.next(0.2) is None
    assert scheduler.next(0.3) == ("a", expected)


def test_retries_back_off() -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    now, delays = 0.0, []
    for _ in range(8):
        write(scheduler, now, Outcome.RETRY)
        delays.append(scheduler.delay(now))
        now += delays[-1] or 0.0
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 10, 10]


def test_dropped_update_is_not_written() -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    assert write(scheduler, 0.0, Outcome.DROPPED) == ("a", 1)
    assert not scheduler.busy
    scheduler.offer("a", 2, "Training")
    scheduler.drop("a")
    scheduler.drop("unknown")
    assert scheduler.next(100.0) is None


def test_forgotten_job_ignores_its_late_response() -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    scheduler.start("a", 0.0)
    scheduler.forget("a")
    scheduler.finish("a", 1.0, Outcome.RETRY)
    assert not scheduler.busy
    assert scheduler.next(100.0) is None


def test_ignored_intervals() -> None:
    scheduler = Scheduler()
    scheduler.offer("a", 1, "Training")
    write(scheduler, 0.0)
    scheduler.offer("a", 2, "Training")
    scheduler.ignore_intervals()
    assert scheduler.busy
    assert write(scheduler, 1.0) == ("a", 2)


OFFERS = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from("abcdefgh"), st.sampled_from(["Training", "Saving"])), max_size=60
)


@given(offers=OFFERS, outcomes=st.lists(st.sampled_from([Outcome.WRITTEN, Outcome.RETRY]), max_size=60))
def test_limits_hold_and_the_newest_update_is_written(
    offers: list[tuple[float, str, str]], outcomes: list[Outcome]
) -> None:
    scheduler, now, newest = Scheduler(), 0.0, dict[str, int]()
    outcome_of = iter(outcomes)
    written, starts, last = defaultdict[str, list[float]](list), list[float](), dict[str, int]()

    def pump(until: float) -> None:
        nonlocal now
        while (delay := scheduler.delay(now)) is not None and now + delay <= until:
            now += delay
            due = scheduler.next(now)
            if due is None:  # a rounding error of the clock
                now += 1e-9
                continue
            key, value = due
            scheduler.start(key, now)
            outcome = next(outcome_of, Outcome.WRITTEN)
            scheduler.finish(key, now, outcome)
            starts.append(now)
            if outcome is Outcome.WRITTEN:
                written[key].append(now)
                last[key] = value
        now = max(now, until)

    for number, (pause, key, stage) in enumerate(offers):
        pump(now + pause)
        scheduler.offer(key, number, stage)
        newest[key] = number
    pump(now + 1000)
    assert last == newest
    for times in written.values():
        assert all(late - early >= 10 - 1e-6 for early, late in itertools.pairwise(times))
    assert all(late - early >= 1 - 1e-6 for early, late in zip(starts, starts[20:], strict=False))
