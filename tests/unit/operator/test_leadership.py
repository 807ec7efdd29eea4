"""The life of the leading process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.unit.timeouts import TIMEOUT
from trainyard_kube.errors import LeadershipLostError
from trainyard_operator.leadership import Leader


class FakeElector:
    """A lease that is free unless `wait` is set."""

    def __init__(self, *, wait: bool = False, lose: bool = False) -> None:
        self.calls: list[str] = []
        self._wait, self._lose = wait, lose

    async def acquire(self) -> None:
        self.calls.append("acquire")
        if self._wait:
            await asyncio.Event().wait()

    async def hold(self) -> None:
        if self._lose:
            raise LeadershipLostError("the lease was lost")
        await asyncio.Event().wait()

    async def release(self) -> None:
        self.calls.append("release")


class FakeEvents:
    """Writes nothing."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def drain(self, seconds: float) -> None:
        pass


class Fixture:
    def __init__(self, elector: FakeElector) -> None:
        self.elector, self.events, self.stop = elector, FakeEvents(), asyncio.Event()
        self.log: list[str] = []
        self.started = asyncio.Event()

    async def part(self) -> None:
        self.log.append("part")
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.log.append("part ended")

    async def watch(self, stop: asyncio.Event) -> None:
        self.log.append("watch")
        await stop.wait()
        self.log.append("watch ended")

    async def run(
        self,
        part: Callable[[], Coroutine[Any, Any, None]] | None = None,
        watch: Callable[[asyncio.Event], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        elector, events = cast_any(self.elector), cast_any(self.events)
        leader = Leader(elector, events, parts=[part or self.part], watch=watch or self.watch, stop=self.stop)
        await asyncio.wait_for(leader.run(), TIMEOUT)


def cast_any(value: object) -> Any:
    return value


async def test_stop_ends_the_parts_before_the_watches_and_releases_the_lease() -> None:
    fixture = Fixture(FakeElector())
    running = asyncio.create_task(fixture.run())
    await asyncio.wait_for(fixture.started.wait(), TIMEOUT)
    fixture.stop.set()
    await running
    assert fixture.log == ["watch", "part", "part ended", "watch ended"]
    assert fixture.elector.calls == ["acquire", "release"]


async def test_stop_while_another_process_leads_runs_nothing() -> None:
    fixture = Fixture(FakeElector(wait=True))
    fixture.stop.set()
    await fixture.run()
    assert (fixture.log, fixture.elector.calls) == ([], ["acquire"])


async def test_failure_of_a_part_ends_the_process() -> None:
    async def fail() -> None:
        raise OSError("broken")

    fixture = Fixture(FakeElector())
    with pytest.raises(OSError, match="broken"):
        await fixture.run(part=fail)
    assert fixture.log == ["watch", "watch ended"]
    assert fixture.elector.calls[-1] == "release"


async def test_lost_lease_ends_the_process() -> None:
    fixture = Fixture(FakeElector(lose=True))
    with pytest.raises(LeadershipLostError, match="the lease was lost"):
        await fixture.run()
    assert "part ended" in fixture.log


async def test_end_of_the_watches_ends_the_process() -> None:
    async def end(_stop: asyncio.Event) -> None:
        await asyncio.sleep(0)

    with pytest.raises(LeadershipLostError, match="the watches ended"):
        await Fixture(FakeElector()).run(watch=end)
