from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_gateway.intake.write_scheduler import Outcome, WriteSchedule

Schedule = WriteSchedule[str, int]


def write(schedule: Schedule, now: float, outcome: Outcome = Outcome.WRITTEN) -> tuple[str, int] | None:
    due = schedule.next(now)
    if due is not None:
        schedule.start(due[0], now)
        schedule.finish(due[0], now, outcome)
    return due


def test_the_first_update_is_due_at_once_and_the_next_after_the_interval() -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    assert write(schedule, 100.0) == ("a", 1)
    schedule.offer("a", 2, "Training")
    assert schedule.next(109.9) is None
    assert schedule.delay(105.0) == pytest.approx(5.0)
    assert write(schedule, 110.0) == ("a", 2)
    assert schedule.delay(110.0) is None


def test_what_waits_for_the_rate_is_overdue_and_what_waits_for_its_interval_is_not() -> None:
    schedule = Schedule()
    for key in ("a", "b", "c"):
        schedule.offer(key, 0, "Training")
    assert schedule.overdue(0.0) == 3
    write(schedule, 0.0)
    schedule.offer("a", 1, "Training")
    assert schedule.overdue(0.0) == 2
    assert schedule.overdue(10.0) == 3


def test_what_could_not_be_written_is_overdue_until_it_is() -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    write(schedule, 0.0, Outcome.RETRY)
    assert schedule.overdue(0.1) == 1
    write(schedule, 1.0)
    assert schedule.overdue(60.0) == 0


def test_only_the_newest_update_is_kept() -> None:
    schedule = Schedule()
    for number in range(5):
        schedule.offer("a", number, "Training")
    assert write(schedule, 0.0) == ("a", 4)
    assert schedule.next(60.0) is None


def test_a_changed_stage_goes_before_older_updates_but_keeps_the_interval() -> None:
    schedule = Schedule()
    for key in ("a", "b"):
        schedule.offer(key, 0, "Training")
    assert {write(schedule, 0.0), write(schedule, 0.1)} == {("a", 0), ("b", 0)}
    schedule.offer("a", 1, "Training")
    schedule.offer("b", 1, "Saving")
    assert schedule.next(9.9) is None
    assert write(schedule, 10.2) == ("b", 1)
    assert write(schedule, 10.3) == ("a", 1)


def test_the_rate_holds_over_all_jobs() -> None:
    schedule = Schedule()
    for number in range(30):
        schedule.offer(str(number), number, "Training")
    written = [now / 100 for now in range(100) if write(schedule, now / 100)]
    assert len(written) in (19, 20)  # the clock's grid does not meet every slot


def test_one_write_of_a_job_is_in_flight() -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    schedule.start("a", 0.0)
    schedule.offer("a", 2, "Training")
    assert schedule.next(100.0) is None
    assert schedule.delay(100.0) is None
    schedule.finish("a", 100.0, Outcome.WRITTEN)
    assert schedule.next(100.0) == ("a", 2)


@pytest.mark.parametrize(("newer", "expected"), [(False, 1), (True, 2)])
def test_a_failed_write_is_tried_again_unless_a_newer_one_came(newer: bool, expected: int) -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    schedule.start("a", 0.0)
    if newer:
        schedule.offer("a", 2, "Training")
    schedule.finish("a", 0.0, Outcome.RETRY)
    assert schedule.next(0.2) is None
    assert schedule.next(0.3) == ("a", expected)


def test_failures_are_tried_again_ever_more_slowly() -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    now, pauses = 0.0, []
    for _ in range(8):
        write(schedule, now, Outcome.RETRY)
        pauses.append(schedule.delay(now))
        now += pauses[-1] or 0.0
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 10, 10]


def test_a_dropped_update_is_gone() -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    assert write(schedule, 0.0, Outcome.DROPPED) == ("a", 1)
    assert not schedule.busy
    schedule.offer("a", 2, "Training")
    schedule.drop("a")
    schedule.drop("unknown")
    assert schedule.next(100.0) is None


def test_a_forgotten_job_is_not_written_and_its_late_answer_does_nothing() -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    schedule.start("a", 0.0)
    schedule.forget("a")
    schedule.finish("a", 1.0, Outcome.RETRY)
    assert not schedule.busy
    assert schedule.next(100.0) is None


def test_at_the_end_the_interval_no_longer_holds() -> None:
    schedule = Schedule()
    schedule.offer("a", 1, "Training")
    write(schedule, 0.0)
    schedule.offer("a", 2, "Training")
    schedule.hurry()
    assert schedule.busy
    assert write(schedule, 1.0) == ("a", 2)


OFFERS = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from("abcdefgh"), st.sampled_from(["Training", "Saving"])), max_size=60
)


@given(offers=OFFERS, outcomes=st.lists(st.sampled_from([Outcome.WRITTEN, Outcome.RETRY]), max_size=60))
def test_whatever_comes_limits_hold_and_the_newest_is_written(
    offers: list[tuple[float, str, str]], outcomes: list[Outcome]
) -> None:
    schedule, now, newest = Schedule(), 0.0, dict[str, int]()
    fates = iter(outcomes)
    written, starts, last = defaultdict[str, list[float]](list), list[float](), dict[str, int]()

    def pump(until: float) -> None:
        nonlocal now
        while (delay := schedule.delay(now)) is not None and now + delay <= until:
            now += delay
            due = schedule.next(now)
            if due is None:  # a rounding error of the clock
                now += 1e-9
                continue
            key, value = due
            schedule.start(key, now)
            fate = next(fates, Outcome.WRITTEN)
            schedule.finish(key, now, fate)
            starts.append(now)
            if fate is Outcome.WRITTEN:
                written[key].append(now)
                last[key] = value
        now = max(now, until)

    for number, (pause, key, stage) in enumerate(offers):
        pump(now + pause)
        schedule.offer(key, number, stage)
        newest[key] = number
    pump(now + 1000)
    assert last == newest
    for times in written.values():
        assert all(late - early >= 10 - 1e-6 for early, late in itertools.pairwise(times))
    assert all(late - early >= 1 - 1e-6 for early, late in zip(starts, starts[20:], strict=False))
