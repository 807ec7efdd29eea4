"""kopf as the transport of watch events: its streams, reconnects and backoff; no handler of it does any work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import kopf

from trainyard_kube.informer import Informer
from trainyard_kube.kopf_session import Login
from trainyard_kube.kopf_storage import NoDiffBase, NoProgress
from trainyard_kube.paths import group_version_plural
from trainyard_kube.rate_limit import Pacer

Informers = Sequence[Informer[Any]]


class KopfTransport:
    """Watches the resources of several informers, with one watch per resource.

    Args:
        informers: Receive the events.
        on_relist: Called with each informer whose resource kopf listed, at its start or because its watch lost its
            place: kopf reports no deletions that happened before.
        clock: Monotonic seconds.
        finalizer: kopf removes this finalizer where it finds it; a name that no object has.
    """

    def __init__(
        self,
        informers: Iterable[Informer[Any]],
        *,
        on_relist: Callable[[Informer[Any]], None],
        clock: Callable[[], float],
        finalizer: str,
    ) -> None:
        self._by_url: dict[str, list[Informer[Any]]] = {}
        for informer in informers:
            self._by_url.setdefault(informer.spec.url, []).append(informer)
        self._on_relist, self._clock, self._finalizer = on_relist, clock, finalizer

    def listed(self, url: str) -> None:
        """Report a list that kopf made; an empty one causes no event."""
        for informer in self._by_url.get(url, ()):
            self._on_relist(informer)

    async def run(self, kubeconfig: str | None, stop: asyncio.Event) -> None:
        """Watch until `stop` is set; returns or raises when kopf ends.

        Args:
            kubeconfig: Kubeconfig file; None inside a cluster.
            stop: Ends the watches.
        """
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(Login(kubeconfig, Pacer(self._clock, asyncio.sleep), self.listed).session)
        for url, informers in self._by_url.items():
            group, version, plural = group_version_plural(url)
            kopf.on.event(group, version, plural, registry=registry, id=f"watch-{plural}")(_handler(informers))
        await kopf.operator(registry=registry, settings=self.settings(), clusterwide=True, stop_flag=stop)

    def settings(self) -> kopf.OperatorSettings:
        """Return kopf's settings."""
        settings = kopf.OperatorSettings()
        settings.peering.standalone = True
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 330
        settings.watching.connect_timeout = 10
        settings.watching.reconnect_backoff = 1.0
        settings.watching.inactivity_timeout = 70
        settings.watching.chunk_size = 500
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = (1, 1, 2, 3, 5, 8, 13, 21, 30, 30, 30)
        settings.queueing.idle_timeout = 0.1  # the idle task of each object keeps the whole of its last event
        settings.persistence.finalizer = self._finalizer
        settings.persistence.diffbase_storage = NoDiffBase()
        settings.persistence.progress_storage = NoProgress()
        for url, informers in self._by_url.items():
            selectors = {informer.spec.selector for informer in informers}
            if len(selectors) == 1 and "" not in selectors:
                settings.watching.label_selectors[group_version_plural(url)[2]] = selectors.pop()
        return settings


def _handler(informers: Informers) -> Callable[..., Any]:
    # A coroutine, because kopf runs plain functions in threads.
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        for informer in informers:
            informer.handle(event)

    return handle
