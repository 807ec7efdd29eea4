"""The adapters of the engine follow the desired set, also after it was restarted and when it refuses one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from trainyard_crds.modeldeployment_status import AdapterState
from trainyard_crds.serving import AdapterSet, Artifact, DesiredAdapter, FetchFailure
from trainyard_serving.proxy.adapters.backoff import ATTEMPTS, delay
from trainyard_serving.proxy.adapters.checks import Unfit
from trainyard_serving.proxy.adapters.fetching import FetchError
from trainyard_serving.proxy.adapters.manager import AdapterManager
from trainyard_serving.proxy.engine import Engine, EngineError
from trainyard_serving.proxy.names import Names, Version

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


class FakeEngine:
    """An engine that can be away, or refuse."""

    base = "base"

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.calls: list[str] = []
        self.away = False
        self.refuse: EngineError | None = None

    async def models(self) -> set[str] | None:
        return None if self.away else {self.base, *self.loaded}

    async def load(self, name: str, path: str) -> None:
        self.calls.append(f"load {name}")
        if self.refuse is not None:
            raise self.refuse
        self.loaded[name] = path

    async def unload(self, name: str) -> None:
        self.calls.append(f"unload {name}")
        self.loaded.pop(name, None)


class Rig:
    """A manager with a fake engine, a fake clock and files that are always there."""

    def __init__(self, directory: Path) -> None:
        self.engine, self.names, self.now = FakeEngine(), Names("base"), 0.0
        self.unfit: Unfit | None = None
        self.fetch_error: FetchFailure | None = None
        self.manager = AdapterManager(
            engine=cast("Engine", self.engine),
            names=self.names,
            directory=directory,
            fetch=self._fetch,
            check=lambda _: self.unfit or 8,
            clock=lambda: self.now,
        )

    async def _fetch(self, artifact: Artifact, target: Path) -> None:
        if self.fetch_error is not None:
            raise FetchError(self.fetch_error)
        await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)

    async def reconcile(self, **adapters: str) -> dict[str, Any]:
        await self.manager.reconcile(wanted(**adapters))
        return {one.name: (one.state, one.served) for one in self.manager.report()}


def wanted(**adapters: str) -> AdapterSet:
    return AdapterSet.of(
        [
            DesiredAdapter(name=name, artifact=Artifact(source="run://claim/run", digest=digest, display="run"))
            for name, digest in adapters.items()
        ]
    )


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_adapter_is_loaded_under_a_name_of_its_version(rig: Rig) -> None:
    assert await rig.reconcile(bot=A) == {"bot": (AdapterState.LOADED, A)}
    assert rig.engine.calls == [f"load bot@{'a' * 12}"]
    assert rig.names.internal("bot") == f"bot@{'a' * 12}"
    assert rig.names.internal(f"bot@{'a' * 12}") is None
    assert rig.manager.is_settled()


async def test_unchanged_set_costs_no_calls(rig: Rig) -> None:
    await rig.reconcile(bot=A)
    await rig.reconcile(bot=A)
    assert len(rig.engine.calls) == 1


async def test_replacement_answers_at_once_and_the_old_version_goes_after_its_last_request(rig: Rig) -> None:
    await rig.reconcile(bot=A)
    with rig.names.flight(f"bot@{'a' * 12}"):
        assert await rig.reconcile(bot=B) == {"bot": (AdapterState.LOADED, B)}
        await rig.reconcile(bot=B)
        assert rig.engine.calls[1:] == [f"load bot@{'b' * 12}"]
    await rig.reconcile(bot=B)
    assert rig.engine.calls[2:] == [f"unload bot@{'a' * 12}"]
    assert sorted(path.name for path in rig.manager.directory.iterdir()) == ["b" * 64]


async def test_replacement_that_fails_leaves_the_old_version(rig: Rig) -> None:
    await rig.reconcile(bot=A)
    rig.unfit = Unfit("RankTooLarge", "Its rank is 64.")
    assert await rig.reconcile(bot=B) == {"bot": (AdapterState.FAILED, A)}
    assert rig.names.published("bot") == Version("bot", A)


async def test_removed_adapter_is_withdrawn_before_it_is_unloaded(rig: Rig) -> None:
    await rig.reconcile(bot=A)
    with rig.names.flight(f"bot@{'a' * 12}"):
        await rig.reconcile()
        assert rig.names.internal("bot") is None
        assert rig.engine.calls[1:] == []
    await rig.reconcile()
    assert rig.engine.calls[1:] == [f"unload bot@{'a' * 12}"]


async def test_restarted_engine_gets_every_adapter_again_before_it_is_settled(rig: Rig) -> None:
    await rig.reconcile(bot=A, other=B)
    rig.engine.away = True
    assert await rig.reconcile(bot=A, other=B) == {
        "bot": (AdapterState.LOADED, None),
        "other": (AdapterState.LOADED, None),
    }
    assert not rig.manager.is_settled()
    rig.engine.away, rig.engine.loaded = False, {}
    await rig.reconcile(bot=A, other=B)
    assert set(rig.engine.loaded) == {f"bot@{'a' * 12}", f"other@{'b' * 12}"}
    assert rig.manager.is_settled()


async def test_refusal_backs_off_then_fails_until_the_set_changes(rig: Rig) -> None:
    rig.engine.refuse = EngineError("it has other layers", 500)
    for attempt in range(1, ATTEMPTS + 1):
        await rig.reconcile(bot=A)
        assert len(rig.engine.calls) == attempt
        await rig.reconcile(bot=A)
        assert len(rig.engine.calls) == attempt, "it was tried again too early"
        rig.now += delay(attempt)
    [report] = rig.manager.report()
    assert (report.state, report.reason, report.message) == (AdapterState.FAILED, "LoadFailed", "it has other layers")
    rig.now += 10_000
    await rig.reconcile(bot=A)
    assert len(rig.engine.calls) == ATTEMPTS
    assert rig.manager.is_settled(), "one that cannot be served must not keep the others from being ready"
    rig.engine.refuse = None
    assert (await rig.reconcile(bot=A, other=B))["bot"] == (AdapterState.LOADED, A)


async def test_engine_that_is_away_is_no_fault_of_an_adapter(rig: Rig) -> None:
    rig.engine.refuse = EngineError("it does not answer")
    for _ in range(3 * ATTEMPTS):
        await rig.reconcile(bot=A)
        rig.now += 100
    assert rig.manager.report()[0].state is AdapterState.PENDING


@pytest.mark.parametrize(("final", "state"), [(True, AdapterState.FAILED), (False, AdapterState.PENDING)])
async def test_fetch_failure_has_its_reason(rig: Rig, final: bool, state: AdapterState) -> None:
    rig.fetch_error = FetchFailure(reason="FetchNotFound", message="There is no such file.", final=final)
    await rig.reconcile(bot=A)
    [report] = rig.manager.report()
    assert (report.state, report.reason, report.message) == (state, "FetchNotFound", "There is no such file.")


async def test_wait_landed_waits_for_every_request() -> None:
    names = Names("base")
    with names.flight("base"):
        waiting = asyncio.ensure_future(names.wait_landed())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert names.in_flight == 1
    await asyncio.wait_for(waiting, 10)
