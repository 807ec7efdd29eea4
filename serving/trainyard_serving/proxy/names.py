"""Names in requests and the versions that answer under them. No I/O."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SHOWN = 12
"""Hexadecimal digits of an identity in the engine's name of an adapter."""


@dataclass(frozen=True)
class Version:
    """One version of an adapter.

    Attributes:
        name: Its public name.
        identity: `sha256:` of what it is.
    """

    name: str
    identity: str

    @property
    def internal(self) -> str:
        """Its name in the engine: another version has another one."""
        return f"{self.name}@{self.digest[:_SHOWN]}"

    @property
    def digest(self) -> str:
        """The identity as 64 hexadecimal digits; names its directory."""
        return self.identity.removeprefix("sha256:")


class Names:
    """Public names, the version that answers under each, and the requests in flight.

    Args:
        base: Name of the base model.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self._published: dict[str, Version] = {}
        self._flying: Counter[str] = Counter()
        self._landed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return self._flying.total()

    def published(self, name: str) -> Version | None:
        """Return the version that answers under a name."""
        return self._published.get(name)

    def all_published(self) -> dict[str, Version]:
        """Return the versions by their names."""
        return dict(self._published)

    def publish(self, version: Version) -> None:
        """Let a version answer requests under its name from now on."""
        self._published[version.name] = version

    def withdraw(self, name: str) -> None:
        """Answer no further request under a name."""
        self._published.pop(name, None)

    def internal(self, name: str) -> str | None:
        """Return the engine's name for a name in a request; None if nothing answers under it."""
        if name == self.base:
            return name
        version = self._published.get(name)
        return version.internal if version else None

    @contextmanager
    def flight(self, internal: str) -> Iterator[None]:
        """Count a request while it is answered."""
        self._flying[internal] += 1
        try:
            yield
        finally:
            self._flying[internal] -= 1
            if not self._flying[internal]:
                del self._flying[internal]
                self._landed.set()

    def is_in_flight(self, internal: str) -> bool:
        """Return whether a request to a version is being answered."""
        return internal in self._flying

    async def wait_landed(self) -> None:
        """Wait until no request is in flight."""
        while self._flying:
            self._landed.clear()
            await self._landed.wait()
