"""The schedule, with time as a number, and the queue on which workers wait."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.timeouts import TIMEOUT
from trainyard_operator.reconcile.work_queue import Result, Schedule, WorkQueue


def test_key_added_twice_is_taken_once() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a")
    schedule.add("a")
    assert [schedule.take(0), schedule.take(0)] == ["a", None]


def test_key_added_in_progress_runs_again() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a")
    schedule.take(0)
    schedule.add("a")
    assert schedule.take(0) is None
    schedule.done("a", 0, Result())
    assert schedule.take(0) == "a"


def test_backoff_doubles_until_success() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a")
    now, backoffs = 0.0, []
    for _ in range(10):
        assert schedule.take(now) == "a"
        schedule.done("a", now, Result(failed=True))
        due = schedule.next_due()
        assert due is not None
        backoffs.append(round(due - now, 3))
        now = due
    assert backoffs == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]
    schedule.take(now)
    schedule.done("a", now, Result())
    schedule.add("a")
    schedule.take(now)
    schedule.done("a", now, Result(failed=True))
    assert schedule.next_due() == now + 0.1


def test_earliest_due_time_wins_and_add_makes_a_key_due_now() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add_at("a", 50)
    schedule.add_at("a", 10)
    schedule.add_at("a", 30)
    assert (schedule.take(9), schedule.take(10)) == (None, "a")
    schedule.done("a", 10, Result(again_after=40))
    schedule.add("a")
    assert schedule.take(11) == "a"
    schedule.done("a", 11, Result())
    assert (schedule.next_due(), schedule.take(100)) == (None, None)


def test_backoff_is_at_least_what_the_server_requested() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a")
    schedule.take(0)
    schedule.done("a", 0, Result(failed=True, at_least=7))
    assert schedule.next_due() == 7


async def test_worker_wakes_for_added_and_due_keys() -> None:
    queue: WorkQueue[str] = WorkQueue(asyncio.get_running_loop().time)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await waiting == "a"
    queue.done("a", Result(again_after=0.01))
    assert await asyncio.wait_for(queue.get(), TIMEOUT) == "a"


def test_urgent_key_is_taken_first() -> None:
    schedule: Schedule[str] = Schedule(lambda key: key == "new")
    for key in ("a", "b", "new"):
        schedule.add(key)
    assert [schedule.take(0), schedule.take(0), schedule.take(0)] == ["new", "a", "b"]


def test_waiting_key_that_becomes_urgent_moves_ahead() -> None:
    urgent: set[str] = set()
    schedule: Schedule[str] = Schedule(lambda key: key in urgent)
    for key in ("a", "b", "c"):
        schedule.add(key)
    urgent.add("c")
    schedule.add("c")
    assert (len(schedule), [schedule.take(0) for _ in range(4)]) == (3, ["c", "a", "b", None])


def test_two_other_keys_are_in_progress_beside_urgent_ones() -> None:
    schedule: Schedule[int] = Schedule(lambda key: key == 0)
    for key in range(6):
        schedule.add(key)
    assert [schedule.take(0) for _ in range(4)] == [0, 1, 2, None]
    schedule.done(1, 0, Result())
    assert [schedule.take(0), schedule.take(0)] == [3, None]
    schedule.done(0, 0, Result())
    assert [schedule.take(0) for _ in range(3)] == [4, 5, None]


def test_urgent_keys_do_not_starve_the_others() -> None:
    schedule: Schedule[int] = Schedule(lambda key: key > 0)
    schedule.add(0)
    taken = []
    for number in range(1, 40):
        schedule.add(number)
        key = schedule.take(0)
        assert key is not None
        taken.append(key)
        schedule.done(key, 0, Result())
    assert taken.index(0) == 15


class Keys(RuleBasedStateMachine):
    """No key is in progress twice at once, and no added key is lost or starved."""

    def __init__(self) -> None:
        super().__init__()
        self.urgent: set[int] = set()
        self.schedule: Schedule[int] = Schedule(self.urgent.__contains__)
        self.now = 0.0
        self.running: set[int] = set()
        self.wanted: set[int] = set()

    @rule(key=st.integers(0, 3))
    def add(self, key: int) -> None:
        self.schedule.add(key)
        self.wanted.add(key)

    @rule(key=st.integers(0, 3), seconds=st.floats(0, 20))
    def add_later(self, key: int, seconds: float) -> None:
        self.schedule.add_at(key, self.now + seconds)
        self.wanted.add(key)

    @rule(keys=st.sets(st.integers(0, 3)))
    def change_urgent(self, keys: set[int]) -> None:
        self.urgent.clear()
        self.urgent.update(keys)

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        if key is not None:
            assert key not in self.running
            self.running.add(key)
            self.wanted.discard(key)

    @rule(failed=st.booleans(), data=st.data())
    def done(self, failed: bool, data: st.DataObject) -> None:
        if self.running:
            key = data.draw(st.sampled_from(sorted(self.running)))
            self.running.discard(key)
            self.schedule.done(key, self.now, Result(failed=failed))
            if failed:
                self.wanted.add(key)

    @rule(seconds=st.floats(0, 5))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_key_is_lost(self) -> None:
        reachable = len(self.schedule) > 0 or self.schedule.next_due() is not None
        assert not (self.wanted - self.running) or reachable

    def teardown(self) -> None:
        """Without further events every waiting key is taken, even while urgent keys arrive."""
        for key in sorted(self.running):
            self.schedule.done(key, self.now, Result())
        left = set(self.wanted)
        for _ in range(20):
            self.schedule.add(99)
            self.urgent.add(99)
            for _ in range(2 * 16):
                self.now += 1.0
                taken = self.schedule.take(self.now)
                if taken is not None:
                    left.discard(taken)
                    self.schedule.done(taken, self.now, Result())
                    self.schedule.add(99)
        assert not left
        assert self.schedule.busy == 0


TestKeys = Keys.TestCase
TestKeys.settings = settings(max_examples=60, stateful_step_count=30)


async def test_each_key_wakes_one_worker() -> None:
    queue: WorkQueue[int] = WorkQueue(asyncio.get_running_loop().time)
    got: list[int] = []

    async def work() -> None:
        got.append(await queue.get())

    workers = [asyncio.create_task(work()) for _ in range(5)]
    await asyncio.sleep(0)
    queue.add(1)
    assert sum(not waker.done() for waker in queue._wakers) == 4  # one worker is woken, not all
    for key in (2, 3, 4, 5):
        queue.add(key)
    await asyncio.wait_for(asyncio.gather(*workers), TIMEOUT)
    assert sorted(got) == [1, 2, 3, 4, 5]


async def test_due_key_is_taken_when_the_worker_that_waited_for_it_is_busy() -> None:
    queue: WorkQueue[str] = WorkQueue(asyncio.get_running_loop().time)
    workers = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.schedule.add_at("later", asyncio.get_running_loop().time() + 0.02)
    queue.add("now")
    done = [await asyncio.wait_for(worker, TIMEOUT) for worker in workers]
    assert sorted(done) == ["later", "now"]


async def test_wait_until_no_urgent_key_is_left() -> None:
    queue: WorkQueue[str] = WorkQueue(lambda: 0.0, lambda key: key == "new")
    queue.add("old")
    await asyncio.wait_for(queue.wait_until_no_urgent(), TIMEOUT)
    queue.add("new")
    waiting = asyncio.create_task(queue.wait_until_no_urgent())
    assert await queue.get() == "new"
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("new", Result())
    await asyncio.wait_for(waiting, TIMEOUT)


async def test_cancelled_worker_wakes_another() -> None:
    queue: WorkQueue[str] = WorkQueue(lambda: 0.0)
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, TIMEOUT) == "a"


async def test_cancelled_worker_ends_though_a_key_arrives() -> None:
    queue: WorkQueue[str] = WorkQueue(lambda: 0.0)
    queue.schedule.add_at("later", 60.0)

    async def work() -> None:
        while True:
            queue.done(await queue.get(), Result())

    worker = asyncio.create_task(work())
    await asyncio.sleep(0)
    queue.add("now")
    await asyncio.sleep(0)
    worker.cancel()
    done, _ = await asyncio.wait({worker}, timeout=TIMEOUT)
    assert done
