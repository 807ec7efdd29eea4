"""What a kind supplies to be reconciled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Generic, TypeVar

from trainyard_kube.paths import Object
from trainyard_kube.resource import Key
from trainyard_operator.reconcile.plan import Observation, Plan

ObservationT = TypeVar("ObservationT", bound=Observation)


def _ignore(_obj: Object) -> None:
    """Keep nothing: the resource is not cached."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource of the API server that plans refer to.

    Attributes:
        kind: Its kind, as in a body.
        collection: URL path of its collection, with `{namespace}`.
        ingest: Takes the API server's newest version of an object, so that the next observation sees it at once.
        remove: Takes an object that is gone.
    """

    kind: str
    collection: str
    ingest: Callable[[Object], object] = _ignore
    remove: Callable[[Object], object] = _ignore

    @property
    def plural(self) -> str:
        """Its plural name, as plans use it."""
        return self.collection.rpartition("}")[2]


class Kind(ABC, Generic[ObservationT]):
    """A kind of custom resource.

    Attributes:
        resource: The kind's own resource.
        related: Resources that its plans create, apply, patch, delete or look up.
        uid_label: Label with the object's UID by which a child without owner reference is recognised.
        untrusted_status: Status fields filled from other programs' messages. They are dropped where the API server
            refuses them, so that they never prevent the rest from being written.
        lookups: Look-ups of its own beyond the API server, by the kind of the `Need`; each is given the need's name.
    """

    resource: Resource
    related: tuple[Resource, ...]
    uid_label: str
    untrusted_status: Collection[str] = ()
    lookups: Mapping[str, Callable[[str], Awaitable[object]]] = MappingProxyType({})

    @abstractmethod
    def observe(self, key: Key) -> ObservationT | None:
        """Return the object of a key with its children from the informer cache; None when it is gone."""

    @abstractmethod
    def plan(self, observed: ObservationT, now: datetime) -> Plan:
        """Decide what to do; pure."""

    def carried_out(self, observed: ObservationT) -> None:
        """Take notice that a plan for this observation was carried out, status included."""
