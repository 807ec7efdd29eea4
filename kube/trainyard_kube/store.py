"""Trimmed objects of several kinds: owners by key, and their children by owner. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from trainyard_kube.cache import Cache
from trainyard_kube.compressed_object import CompressedObject, decompressed
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key, StoredSpec

Stored = Object | CompressedObject


class Store:
    """Indexed caches of owners and children.

    Args:
        specs: The kinds; owners first.
    """

    def __init__(self, specs: Iterable[StoredSpec]) -> None:
        self._specs = {spec.kind: spec for spec in specs}
        self._caches: dict[str, Cache[Stored]] = {
            kind: Cache(spec.trim, partial(self._on_child if spec.owner_uid else self._on_owner, spec))
            for kind, spec in self._specs.items()
        }
        self._children: dict[tuple[str, str], dict[str, None]] = {}
        self._deleted: dict[tuple[str, str], dict[str, Object]] = {}
        self._uids: dict[Key, str] = {}
        self._owners: dict[str, Key] = {}
        self._final: set[str] = set()
        self._states: dict[str, str] = {}
        self._namespaces: Counter[str] = Counter()

    # --- reading ------------------------------------------------------------------------------------------------------

    def cache(self, kind: str) -> Cache[Stored]:
        """Return the cache of a kind, for its informer."""
        return self._caches[kind]

    def get(self, key: Key) -> Object | None:
        """Return an owner."""
        uid = self._uids.get(key)
        entry = None if uid is None else self._caches[key.kind].get(uid)
        return None if entry is None else decompressed(entry)

    def children(self, kind: str, owner_uid: str, labels: Mapping[str, str]) -> list[Object]:
        """Return the children of an owner with these labels, deleted ones that are kept (`gone: true`) included."""
        cache, key = self._caches[kind], self._owners.get(owner_uid)
        entries = [cache.get(uid) for uid in self._children.get((kind, owner_uid), ())]
        found = [decompressed(entry) for entry in entries if entry is not None]
        found += self._deleted.get((kind, owner_uid), {}).values()
        # A label is easily forged, so a child counts only in its owner's namespace.
        return [
            child
            for child in found
            if key is not None
            and child["metadata"]["namespace"] == key.namespace
            and labels.items() <= (child["metadata"].get("labels") or {}).items()
        ]

    def has_children(self, kind: str, owner_uid: str) -> bool:
        """Return whether an owner has children of a kind that exist."""
        return (kind, owner_uid) in self._children

    def owners_of(self, kind: str, selects: Callable[[Object], bool]) -> set[Key]:
        """Return the owners that are not final of the children of a kind which `selects` accepts."""
        children = [child for child in self._caches[kind].values() if not isinstance(child, CompressedObject)]
        keys = {self.key_of(kind, child) for child in children if selects(child)}
        return {key for key in keys if key is not None}

    def key_of(self, kind: str, entry: Stored) -> Key | None:
        """Return the key of an owner, or of the owner of a child; None if that is unknown or in another namespace."""
        spec, obj = self._specs[kind], decompressed(entry)
        metadata = obj["metadata"]
        if spec.owner_uid is None:
            return Key(kind, metadata["namespace"], metadata["name"])
        key = self._owners.get(spec.owner_uid(obj))
        return key if key is not None and key.namespace == metadata["namespace"] else None

    def all_keys(self) -> list[Key]:
        """Return the keys of all owners."""
        return list(self._uids)

    def namespaces(self) -> set[str]:
        """Return the namespaces with an owner."""
        return set(self._namespaces)

    def has_namespace(self, namespace: str) -> bool:
        """Return whether a namespace has an owner."""
        return namespace in self._namespaces

    def count_states(self, kind: str) -> Counter[str]:
        """Return the number of owners of a kind in each state."""
        return Counter(self._states[uid] for key, uid in self._uids.items() if key.kind == kind)

    # --- writing ------------------------------------------------------------------------------------------------------

    def put(self, kind: str, obj: Object) -> Key | None:
        """Store an object unless a newer version of it is cached or it was deleted, and return its owner's key."""
        self._caches[kind].put(obj)
        return self.key_of(kind, obj)

    def remove(self, kind: str, obj: Object) -> Key | None:
        """Remove an object that the API server does not find any more, and return its owner's key."""
        self._caches[kind].delete(obj, for_good=True)
        return self.key_of(kind, obj)

    def forget_deleted(self, kind: str, owner_uid: str, children: Iterable[Object]) -> None:
        """Drop deleted children whose last state has been recorded."""
        kept = self._deleted.get((kind, owner_uid), {})
        for child in children:
            kept.pop(child["metadata"]["uid"], None)
        if not kept:
            self._deleted.pop((kind, owner_uid), None)

    # --- indexes ------------------------------------------------------------------------------------------------------

    def _on_owner(self, spec: StoredSpec, uid: str, before: Stored | None, after: Stored | None) -> None:
        if after is None:
            self._remove_owner(uid)
            return
        obj = decompressed(after)
        key = Key(spec.kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
        if key not in self._uids:
            self._namespaces[key.namespace] += 1
        self._uids[key], self._owners[uid], self._states[uid] = uid, key, spec.state(obj)
        if not spec.is_final(obj):
            self._final.discard(uid)
            return
        self._final.add(uid)
        self._caches[spec.kind].swap(uid, CompressedObject(obj))
        for kind in self._specs:
            for child in self._children.get((kind, uid), ()):
                self._compress(kind, child)

    def _on_child(self, spec: StoredSpec, uid: str, before: Stored | None, after: Stored | None) -> None:
        assert spec.owner_uid is not None
        if after is not None:
            owner = spec.owner_uid(decompressed(after))
            self._children.setdefault((spec.kind, owner), {})[uid] = None
            self._deleted.get((spec.kind, owner), {}).pop(uid, None)
            if owner in self._final:
                self._compress(spec.kind, uid)
            return
        if before is None:
            return
        last = decompressed(before)
        owner = spec.owner_uid(last)
        siblings = self._children.get((spec.kind, owner), {})
        siblings.pop(uid, None)
        if not siblings:
            self._children.pop((spec.kind, owner), None)
        if spec.keep_deleted and self.key_of(spec.kind, last) is not None:
            self._deleted.setdefault((spec.kind, owner), {})[uid] = {**last, "gone": True}

    def _compress(self, kind: str, uid: str) -> None:
        entry = self._caches[kind].get(uid)
        if entry is not None and not isinstance(entry, CompressedObject):
            self._caches[kind].swap(uid, CompressedObject(entry))

    def _remove_owner(self, uid: str) -> None:
        key = self._owners.pop(uid, None)
        self._final.discard(uid)
        self._states.pop(uid, None)
        for kind in self._specs:
            self._deleted.pop((kind, uid), None)
        if key is not None and self._uids.get(key) == uid:
            del self._uids[key]
            self._namespaces[key.namespace] -= 1
            if not self._namespaces[key.namespace]:
                del self._namespaces[key.namespace]
