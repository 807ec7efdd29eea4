"""Brings the engine to the desired adapters: loads, replaces and removes them, also after the engine was restarted."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainyard_crds.modeldeployment_status import AdapterState
from trainyard_crds.serving import AdapterSet, Artifact, DesiredAdapter, FetchFailure, ReplicaAdapter
from trainyard_serving.proxy.adapters.backoff import ATTEMPTS, delay
from trainyard_serving.proxy.adapters.checks import Unfit
from trainyard_serving.proxy.adapters.fetching import FetchError
from trainyard_serving.proxy.engine import Engine, EngineError
from trainyard_serving.proxy.names import Names, Version

logger = logging.getLogger(__name__)

Fetch = Callable[[Artifact, Path], Awaitable[None]]
Check = Callable[[Path], Unfit | int]


@dataclass(kw_only=True)
class _Progress:
    """How far one desired version has come.

    Attributes:
        version: The version.
        state, reason, message: As reported.
        failures: Failed tries.
        not_before: Monotonic time of the next try.
        rank: Its rank, once known.
    """

    version: Version
    state: AdapterState = AdapterState.PENDING
    reason: str | None = None
    message: str | None = None
    failures: int = 0
    not_before: float = 0.0
    rank: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether it is not tried again."""
        return self.state is AdapterState.FAILED

    def fail(self, reason: str, message: str, *, final: bool, now: float) -> None:
        """Record a failed try."""
        self.failures += 1
        self.reason, self.message = reason, message
        self.state = AdapterState.FAILED if final or self.failures >= ATTEMPTS else AdapterState.PENDING
        self.not_before = now + delay(self.failures)
        logger.warning("adapter %s: %s: %s", self.version.name, reason, message)


@dataclass
class AdapterManager:
    """Owns the adapters of the engine.

    Args:
        engine: The engine.
        names: Names in requests.
        directory: Where adapters are, each below its digest.
        fetch: Fetches an adapter's files.
        check: Checks them.
        clock: Monotonic seconds.

    Attributes:
        desired: The set that was worked on last.
        has_engine: Whether the engine answered in the last pass.
        is_loading: Whether the engine is reading an adapter; it answers no request meanwhile.
    """

    engine: Engine
    names: Names
    directory: Path
    fetch: Fetch
    check: Check
    clock: Callable[[], float]
    desired: AdapterSet = field(default_factory=lambda: AdapterSet(version=""))
    has_engine: bool = False
    is_loading: bool = False
    _progress: dict[str, _Progress] = field(default_factory=dict)
    _retired: dict[str, Version] = field(default_factory=dict)

    async def reconcile(self, wanted: AdapterSet) -> None:
        """Do one pass: withdraw what is not wanted, load what is missing, unload what is not used any more."""
        self._take(wanted)
        loaded = await self.engine.models()
        self.has_engine = loaded is not None and self.engine.base in loaded
        if loaded is None or not self.has_engine:
            return
        for adapter in wanted.adapters:
            await self._bring(adapter, loaded)
        await self._clear(loaded)

    def is_settled(self) -> bool:
        """Return whether every desired adapter answers or cannot be served at all."""
        return self.has_engine and all(
            progress.is_final or progress.state is AdapterState.LOADED for progress in self._progress.values()
        )

    def report(self) -> list[ReplicaAdapter]:
        """Return the state of every desired adapter."""
        return [self._report(progress) for progress in self._progress.values()]

    # --- one pass -----------------------------------------------------------------------------------------------------

    def _take(self, wanted: AdapterSet) -> None:
        """Take over a set: unchanged versions keep their progress unless they failed, which a new set tries again."""
        is_new = wanted.version != self.desired.version
        before, self.desired = self._progress, wanted
        versions = [Version(adapter.name, adapter.artifact.identity) for adapter in wanted.adapters]
        self._progress = {}
        for version in versions:
            known = before.get(version.name)
            keeps = known is not None and known.version == version and not (is_new and known.is_final)
            self._progress[version.name] = known if keeps and known is not None else _Progress(version=version)
        for name, published in self.names.all_published().items():
            if name not in self._progress:
                self.names.withdraw(name)
                self._retired[published.internal] = published

    async def _bring(self, adapter: DesiredAdapter, loaded: set[str]) -> None:
        """Load one version unless the engine has it, and let it answer."""
        progress = self._progress[adapter.name]
        version = progress.version
        if version.internal in loaded and self.names.published(version.name) == version:
            progress.state, progress.reason, progress.message = AdapterState.LOADED, None, None
            return
        if progress.is_final or self.clock() < progress.not_before:
            return
        progress.state = AdapterState.LOADING
        try:
            await self._load(adapter, progress)
        except FetchError as error:
            failure = error.failure
            progress.fail(failure.reason, failure.message, final=failure.final, now=self.clock())
        except EngineError as error:
            is_away = error.status == 0
            progress.fail("EngineUnavailable" if is_away else "LoadFailed", str(error), final=False, now=self.clock())
            if is_away:
                progress.failures = min(progress.failures, 1)  # it is restarted: that is no fault of the adapter
        else:
            self._publish(progress)

    async def _load(self, adapter: DesiredAdapter, progress: _Progress) -> None:
        """Fetch, check and load a version.

        Raises:
            FetchError: its files could not be fetched, or do not fit.
            EngineError: the engine refused it.
        """
        target = self.directory / progress.version.digest
        await self.fetch(adapter.artifact, target)
        checked = await asyncio.to_thread(self.check, target)
        if isinstance(checked, Unfit):
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
            raise FetchError(_final(checked))
        progress.rank = checked
        self.is_loading = True
        try:
            await self.engine.load(progress.version.internal, str(target))
        finally:
            self.is_loading = False
        loaded = await self.engine.models()
        if loaded is None or progress.version.internal not in loaded:
            raise EngineError("The engine took the adapter and does not list it.", 500)

    def _publish(self, progress: _Progress) -> None:
        before = self.names.published(progress.version.name)
        if before is not None and before != progress.version:
            self._retired[before.internal] = before
        self._retired.pop(progress.version.internal, None)
        self.names.publish(progress.version)
        progress.state, progress.reason, progress.message, progress.failures = AdapterState.LOADED, None, None, 0
        logger.info("adapter %s answers as %s", progress.version.name, progress.version.internal)

    async def _clear(self, loaded: set[str]) -> None:
        """Unload retired versions after their last request, and remove their files."""
        for internal, version in list(self._retired.items()):
            if self.names.is_in_flight(internal):
                continue
            if internal in loaded:
                try:
                    await self.engine.unload(internal)
                except EngineError as error:
                    logger.warning("%s cannot be unloaded now: %s", internal, error)
                    continue
            del self._retired[internal]
            if version.digest not in self._digests():
                target = self.directory / version.digest
                await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
            logger.info("adapter version %s is unloaded", internal)

    def _digests(self) -> set[str]:
        used = [progress.version for progress in self._progress.values()]
        return {version.digest for version in (*used, *self._retired.values())}

    def _report(self, progress: _Progress) -> ReplicaAdapter:
        served = self.names.published(progress.version.name)
        return ReplicaAdapter(
            name=progress.version.name,
            identity=progress.version.identity,
            state=progress.state,
            served=served.identity if served is not None and self.has_engine else None,
            reason=progress.reason,
            message=progress.message,
            rank=progress.rank,
        )


def _final(unfit: Unfit) -> FetchFailure:
    return FetchFailure(reason=unfit.reason, message=unfit.message, final=True)
