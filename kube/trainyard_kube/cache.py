"""Cache of the objects of one resource, fed by lists, watch events and answers in any order. No I/O."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, ValuesView
from typing import Generic, NamedTuple, TypeVar

from trainyard_kube.paths import Object

V = TypeVar("V")
_TOMBSTONES = 10_000


class Entry(NamedTuple, Generic[V]):
    """An object as it is cached.

    Attributes:
        uid: Its UID.
        version: Its resourceVersion; since Kubernetes 1.35 versions of one resource may be compared.
        value: What is kept of it; None for nothing.
    """

    uid: str
    version: int
    value: V | None


class Cache(Generic[V]):
    """The newest seen version of each object.

    Args:
        trim: Returns what to keep of an object, None for nothing.
        on_change: Called with UID, previous and new value after each change. The previous value of a deleted object is
            its last state, as the deletion event showed it; the new value is None.
    """

    def __init__(
        self,
        trim: Callable[[Object], V | None],
        on_change: Callable[[str, V | None, V | None], None] = lambda uid, before, after: None,
    ) -> None:
        self._trim, self._on_change = trim, on_change
        self._values: dict[str, V] = {}
        self._versions: dict[str, int] = {}
        self._tombstones: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, uid: str) -> V | None:
        """Return what is kept of an object."""
        return self._values.get(uid)

    def values(self) -> ValuesView[V]:
        """Return what is kept of all objects."""
        return self._values.values()

    def entry(self, obj: Object) -> Entry[V]:
        """Return the entry of an object."""
        return Entry(obj["metadata"]["uid"], version_of(obj), self._trim(obj))

    def has(self, obj: Object) -> bool:
        """Return whether this version of an object, or a newer one, is cached."""
        return self._versions.get(obj["metadata"]["uid"], -1) >= version_of(obj)

    def put(self, obj: Object) -> bool:
        """Store an object unless a newer version of it is cached or it was deleted; return whether it was stored.

        An object that left the selection of a watch looks deleted. The API server's answer to a read shows that it
        exists: its version is the one of the deletion event or a later one, which no deleted object has.
        """
        # Checked before the object is trimmed: most events repeat the answer to a write of this process.
        if self.has(obj) or self._is_buried(obj["metadata"]["uid"], version_of(obj)):
            return False
        return self._store(self.entry(obj))

    def delete(self, obj: Object, *, for_good: bool = False) -> None:
        """Remove a deleted object, given its last state.

        Args:
            obj: The object, as the event of its deletion shows it.
            for_good: Whether the API server does not find it any more; then no version of it is stored again.
        """
        self._remove(obj["metadata"]["uid"], self._trim(obj), math.inf if for_good else version_of(obj))

    def replace(self, entries: Iterable[Entry[V]], version: int) -> list[V]:
        """Apply a complete list: newer objects are stored, missing ones that are not newer than the list are removed.

        Returns:
            The last values of all objects that changed.
        """
        listed = {entry.uid: entry for entry in entries}
        changed: list[V | None] = []
        for uid in [uid for uid, cached in self._versions.items() if uid not in listed and cached <= version]:
            last = self._values.get(uid)
            self._remove(uid, last, version)
            changed.append(last)
        changed += [entry.value for entry in listed.values() if self._store(entry)]
        return [value for value in changed if value is not None]

    def clear(self) -> None:
        """Remove all objects without reporting changes: the kind itself is gone or may not be read."""
        self._values.clear()
        self._versions.clear()

    def swap(self, uid: str, value: V) -> None:
        """Replace the representation of a cached object."""
        self._values[uid] = value

    def _store(self, entry: Entry[V]) -> bool:
        if self._is_buried(entry.uid, entry.version) or self._versions.get(entry.uid, -1) >= entry.version:
            return False
        self._tombstones.pop(entry.uid, None)
        before = self._values.pop(entry.uid, None) if entry.value is None else self._values.get(entry.uid)
        self._versions[entry.uid] = entry.version
        if entry.value is not None:
            self._values[entry.uid] = entry.value
        if before is not None or entry.value is not None:
            self._on_change(entry.uid, before, entry.value)
        return True

    def _is_buried(self, uid: str, version: int) -> bool:
        """Return whether a version of an object is from before its removal."""
        return version < self._tombstones.get(uid, -1)

    def _remove(self, uid: str, last: V | None, version: float) -> None:
        """Remove an object and keep its UID with the version, so that an older list or event does not restore it."""
        self._tombstones[uid] = max(version, self._tombstones.get(uid, -1))
        if len(self._tombstones) > _TOMBSTONES:
            self._tombstones.popitem(last=False)
        self._versions.pop(uid, None)
        before = self._values.pop(uid, None)
        if before is not None or last is not None:
            self._on_change(uid, before if last is None else last, None)


def version_of(obj: Object) -> int:
    """Return the resourceVersion of an object."""
    return int(obj["metadata"]["resourceVersion"])
