"""kopf as transport: lists and watches, and hands every event to the Store and the queue. No I/O, nothing raised."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import kopf

from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL
from trainyard_kube.kopf_session import Login, Pacer
from trainyard_kube.kopf_storage import NoDiffBase, NoProgress
from trainyard_operator.admission.inventory_feed import GpuFeed
from trainyard_operator.kube.store import Key, ResourceKind, Store

logger = logging.getLogger(__name__)

RESOURCES = {
    ResourceKind.TRAINING_JOBS: ("trainyard.dev", "v1alpha1", "trainingjobs"),
    ResourceKind.JOBS: ("batch", "v1", "jobs"),
    ResourceKind.PODS: ("", "v1", "pods"),
}
_KINDS = {plural: kind for kind, (_, _, plural) in RESOURCES.items()}
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


class Watch:
    """Feeds a Store.

    Args:
        store: Takes the objects.
        add: Takes the key of each TrainingJob with news.
        echoed: Takes the key where an event tells what is known: mostly the answer to a request of ours, after which
            whoever made it has decided anew.
        relisted: Told of each kind that kopf listed, at its start or because its watch lost its place: what was
            deleted before is not reported.
        clock: Monotonic seconds.
        gpus: Takes nodes, pods of anybody, and quotas.
    """

    def __init__(
        self,
        store: Store,
        *,
        add: Callable[[Key], None],
        echoed: Callable[[Key], None],
        relisted: Callable[[ResourceKind], None],
        clock: Callable[[], float],
        gpus: GpuFeed,
    ) -> None:
        self._store, self._add, self._relisted, self._clock = store, add, relisted, clock
        self._echoed, self._gpus = echoed, gpus
        self.last_event: dict[ResourceKind, float] = {}

    def handle(self, kind: ResourceKind, event: Any) -> None:
        """Take in one watch event."""
        self.last_event[kind] = self._clock()
        try:
            obj = dict(event["object"])
            if kind is ResourceKind.PODS:
                self._gpus.pod(event)
                if (obj["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) != MANAGED_BY:
                    return
            gone = event["type"] == "DELETED"
            echo = not gone and self._store.has(kind, obj)
            key = self._store.remove(kind, obj) if gone else self._store.put(kind, obj)
        except (KeyError, ValueError, TypeError):
            logger.exception("an event of %s could not be read", kind)
            return
        if key is not None:
            (self._echoed if echo else self._add)(key)

    def listed(self, path: str) -> None:
        """Take notice of a list that kopf got; of an empty one there is no event."""
        kind = _KINDS.get(path.rsplit("/", 1)[-1])
        if kind is not None:
            self._relisted(kind)

    async def run(self, kubeconfig: str | None, stop: asyncio.Event) -> None:
        """Watch until `stop` is set; returns or raises when kopf ends.

        Args:
            kubeconfig: Kubeconfig file; None inside a cluster.
            stop: Ends the watch.
        """
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(Login(kubeconfig, Pacer(self._clock, asyncio.sleep), self.listed).session)

        for kind, (group, version, plural) in RESOURCES.items():
            self._register(registry, kind, (group, version, plural))
        for plural, take in (("nodes", self._gpus.node), ("resourcequotas", self._gpus.quota)):
            kopf.on.event("", "v1", plural, registry=registry, id=f"watch-{plural}")(_handler(plural, take))
        await kopf.operator(registry=registry, settings=_settings(), clusterwide=True, stop_flag=stop)

    def _register(self, registry: kopf.OperatorRegistry, kind: ResourceKind, resource: tuple[str, str, str]) -> None:
        # A coroutine, because kopf runs plain functions in threads.
        async def take(event: kopf.RawEvent, **_: Any) -> None:
            self.handle(kind, event)

        group, version, plural = resource
        kopf.on.event(group, version, plural, registry=registry, id=f"watch-{plural}")(take)


def _handler(plural: str, take: Callable[[Any], None]) -> Callable[..., Any]:
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        try:
            take(event)
        except (KeyError, ValueError, TypeError):
            logger.exception("an event of %s could not be read", plural)

    return handle


def _settings() -> kopf.OperatorSettings:
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
    settings.watching.label_selectors["jobs"] = SELECTOR
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = (1, 1, 2, 3, 5, 8, 13, 21, 30, 30, 30)
    settings.queueing.idle_timeout = 0.1  # each object's task, idle, keeps the whole of its last event
    settings.persistence.finalizer = "trainyard.dev/kopf"
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    return settings
