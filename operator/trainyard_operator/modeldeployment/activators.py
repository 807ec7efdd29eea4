"""Addresses of the gateway's pods, from the EndpointSlices of its Service."""

from __future__ import annotations

from collections.abc import Callable

from trainyard_kube.cache import Cache
from trainyard_kube.paths import Object
from trainyard_kube.resource import ResourceSpec
from trainyard_operator.modeldeployment.children.activator_slice import SERVICE_LABEL
from trainyard_operator.modeldeployment.resources import SLICES

Addresses = frozenset[str]


class Activators:
    """The gateway's pods.

    Args:
        service: Name of the gateway's Service.
        namespace: Its namespace.
        changed: Called after a change.

    Attributes:
        spec: What an informer lists and watches.
        cache: What it keeps current.
    """

    def __init__(self, service: str, namespace: str, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.spec = ResourceSpec[Addresses](
            kind="endpointslices",
            collection=SLICES,
            labels={SERVICE_LABEL: service},
            namespaces=frozenset({namespace}),
            trim=addresses_of,
        )
        self.cache: Cache[Addresses] = Cache(addresses_of, self._on_change)

    def addresses(self) -> Addresses:
        """Return the addresses of all ready pods."""
        return frozenset().union(*self.cache.values())

    def _on_change(self, _uid: str, before: Addresses | None, after: Addresses | None) -> None:
        if before != after:
            self._changed()


def addresses_of(piece: Object) -> Addresses:
    """Return the ready addresses of an EndpointSlice."""
    endpoints = piece.get("endpoints") or []
    ready = (one for one in endpoints if (one.get("conditions") or {}).get("ready") is not False)
    return frozenset(address for one in ready for address in one.get("addresses") or [])
