"""Descriptions of the resources that informers list and watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from trainyard_kube.paths import Object, path

V = TypeVar("V")


class Key(NamedTuple):
    """Kind and name of an object.

    Attributes:
        kind: Plural name of its kind.
        namespace: Its namespace.
        name: Its name.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class ResourceSpec(Generic[V]):
    """One resource of the API server and what is kept of its objects.

    Attributes:
        kind: Plural name of the kind.
        collection: URL path of the collection, see `trainyard_kube.paths`.
        labels: Labels that an object must have; None permits any value.
        namespaces: Namespaces of the objects; empty for all. Others are listed and watched too, and dropped.
        trim: Returns what to keep of an object, None for nothing.
    """

    kind: str
    collection: str
    labels: Mapping[str, str | None] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()
    trim: Callable[[Object], V | None]

    @property
    def url(self) -> str:
        """URL path of the objects of all namespaces."""
        return path(self.collection)

    @property
    def selector(self) -> str:
        """Label selector of list and watch; empty for all objects."""
        return ",".join(key if value is None else f"{key}={value}" for key, value in self.labels.items())

    @property
    def query(self) -> list[tuple[str, str]]:
        """Query parameters of list and watch."""
        return [("labelSelector", self.selector)] if self.labels else []

    def selects(self, obj: Object) -> bool:
        """Return whether an object has the labels and is in the namespaces; lists and watches deliver others, too."""
        if self.namespaces and obj["metadata"].get("namespace") not in self.namespaces:
            return False
        labels = obj["metadata"].get("labels") or {}
        return all(key in labels and value in (None, labels[key]) for key, value in self.labels.items())


@dataclass(frozen=True, kw_only=True)
class StoredSpec(ResourceSpec[Object]):
    """A resource whose trimmed objects a `Store` keeps: either owners, which have keys, or their children.

    Attributes:
        owner_uid: Returns the UID of the owner of a child; None for a kind of owners.
        is_final: Whether an owner never changes again; it and its children are kept compressed.
        state: Returns the state by which an owner is counted.
        keep_deleted: Whether a deleted child stays readable until `Store.forget_deleted`, for what only its last state
            shows, such as how a pod ended.
    """

    owner_uid: Callable[[Object], str] | None = None
    is_final: Callable[[Object], bool] = lambda _: False
    state: Callable[[Object], str] = lambda _: ""
    keep_deleted: bool = False
