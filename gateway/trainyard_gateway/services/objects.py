"""Lists and reads objects of any kind for a user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainyard_crds.common import API_VERSION
from trainyard_kube.paths import Object, path

_CHUNK = "100"
"""Objects per request to the API server."""
_CONCURRENT_LISTS = 4
"""Lists in progress at once: each holds up to a page and a chunk of objects, and the names of all."""


class ObjectReader(Protocol):
    """The API requests of the services."""

    async def get(self, url: str, token: str, query: Sequence[tuple[str, str]] = ()) -> Object:
        """Return the JSON document at a path, read with the caller's token."""


@dataclass(frozen=True)
class Page:
    """A part of a list, newest objects first.

    Attributes:
        items: The objects of this part.
        total: Number of objects that match, on all pages.
    """

    items: list[Object]
    total: int


@dataclass(frozen=True)
class Collection:
    """The objects of a kind.

    Attributes:
        kind: The kind.
        template: Path of its collections, see `trainyard_kube.paths`.
    """

    kind: str
    template: str


class UserObjects:
    """Objects as the caller may see them.

    Args:
        api: Reads objects with the caller's token.
    """

    def __init__(self, api: ObjectReader) -> None:
        self._api = api
        self._lists = asyncio.Semaphore(_CONCURRENT_LISTS)

    async def list_page(
        self,
        token: str,
        collection: Collection,
        namespace: str,
        *,
        matches: Callable[[Object], bool],
        limit: int,
        offset: int,
    ) -> Page:
        """Return a page of the objects of a namespace, newest first.

        Args:
            token: The caller's token.
            collection: The kind of the objects.
            namespace: The namespace.
            matches: Returns whether an object is selected.
            limit: Maximum number of objects.
            offset: Number of newer objects to skip.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """

        async def selected() -> AsyncIterator[Object]:
            async for chunk in self._chunks(token, collection, namespace):
                for item in chunk:
                    if matches(item):
                        yield item

        async with self._lists:
            # A second list reads the objects of the page: all objects before it may not fit in memory.
            order = [_age(item) async for item in selected()]
            page = set(sorted(order, reverse=True)[offset : offset + limit])
            items = [item async for item in selected() if _age(item) in page] if page else []
        items.sort(key=_age, reverse=True)
        return Page([_without_managed_fields(item) for item in items], len(order))

    async def get(self, token: str, collection: Collection, namespace: str, name: str) -> Object:
        """Return one object.

        Args:
            token: The caller's token.
            collection: The kind of the object.
            namespace: The namespace.
            name: Its name; `_` stands for `-`.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """
        url = path(collection.template, namespace, name.replace("_", "-"))
        return _without_managed_fields(await self._api.get(url, token))

    async def _chunks(self, token: str, collection: Collection, namespace: str) -> AsyncIterator[list[Object]]:
        position = ""
        while True:
            query = [("limit", _CHUNK), *([("continue", position)] if position else [])]
            chunk = await self._api.get(path(collection.template, namespace), token, query)
            # Items of a list have neither apiVersion nor kind.
            yield [{"apiVersion": API_VERSION, "kind": collection.kind, **item} for item in chunk["items"]]
            position = chunk["metadata"].get("continue", "")
            if not position:
                return


def _age(document: Object) -> tuple[str, str]:
    metadata = document["metadata"]
    return metadata["creationTimestamp"], metadata["name"]


def _without_managed_fields(document: Object) -> Object:
    metadata = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
    return document | {"metadata": metadata}
