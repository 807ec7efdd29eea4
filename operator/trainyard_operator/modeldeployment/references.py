"""Which ModelDeployments name a TrainingJob: they are reconciled when it changes."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_kube.resource import Key


class References:
    """Keys of objects by the objects that they name."""

    def __init__(self) -> None:
        self._named: dict[Key, frozenset[Key]] = {}
        self._by: dict[Key, set[Key]] = {}

    def put(self, key: Key, named: Iterable[Key]) -> None:
        """Record what an object names; nothing for one that is gone."""
        for other in self._named.pop(key, frozenset()):
            self._by[other].discard(key)
            if not self._by[other]:
                del self._by[other]
        kept = frozenset(named)
        if kept:
            self._named[key] = kept
        for other in kept:
            self._by.setdefault(other, set()).add(key)

    def to(self, named: Key) -> tuple[Key, ...]:
        """Return the objects that name another one."""
        return tuple(self._by.get(named, ()))
