"""Lists and reads TrainingJobs for a user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainyard_crds.common import API_VERSION
from trainyard_crds.constants import TRAINING_JOBS
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object, path

_CHUNK = "100"
"""Objects per request to the API server."""
_CONCURRENT_LISTS = 4
"""Lists in progress at once: each holds up to a page and a chunk of objects, and the names of all."""


class ObjectReader(Protocol):
    """The API requests of the service."""

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


class TrainingJobService:
    """TrainingJobs as the caller may see them.

    Args:
        api: Reads objects with the caller's token.
    """

    def __init__(self, api: ObjectReader) -> None:
        self._api = api
        self._lists = asyncio.Semaphore(_CONCURRENT_LISTS)

    async def list_page(
        self, token: str, namespace: str, *, phases: Collection[Phase], limit: int, offset: int
    ) -> Page:
        """Return a page of the TrainingJobs of a namespace, newest first.

        Args:
            token: The caller's token.
            namespace: The namespace.
            phases: Phases to select; empty for all.
            limit: Maximum number of objects.
            offset: Number of newer objects to skip.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """
        async with self._lists:
            # A second list reads the objects of the page: all objects before it may not fit in memory.
            order = [_age(item) async for item in self._matching(token, namespace, phases)]
            page = set(sorted(order, reverse=True)[offset : offset + limit])
            matching = self._matching(token, namespace, phases)
            items = [item async for item in matching if _age(item) in page] if page else []
        items.sort(key=_age, reverse=True)
        return Page([_without_managed_fields(item) for item in items], len(order))

    async def get(self, token: str, namespace: str, name: str) -> Object:
        """Return one TrainingJob.

        Args:
            token: The caller's token.
            namespace: The namespace.
            name: Its name; `_` stands for `-`.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """
        url = path(TRAINING_JOBS, namespace, name.replace("_", "-"))
        return _without_managed_fields(await self._api.get(url, token))

    async def _matching(self, token: str, namespace: str, phases: Collection[Phase]) -> AsyncIterator[Object]:
        async for chunk in self._chunks(token, namespace):
            for item in chunk:
                if not phases or _phase(item) in phases:
                    yield item

    async def _chunks(self, token: str, namespace: str) -> AsyncIterator[list[Object]]:
        position = ""
        while True:
            query = [("limit", _CHUNK), *([("continue", position)] if position else [])]
            chunk = await self._api.get(path(TRAINING_JOBS, namespace), token, query)
            # Items of a list have neither apiVersion nor kind.
            yield [{"apiVersion": API_VERSION, "kind": "TrainingJob", **item} for item in chunk["items"]]
            position = chunk["metadata"].get("continue", "")
            if not position:
                return


def _phase(document: Object) -> str:
    return str(document.get("status", {}).get("phase", ""))


def _age(document: Object) -> tuple[str, str]:
    metadata = document["metadata"]
    return metadata["creationTimestamp"], metadata["name"]


def _without_managed_fields(document: Object) -> Object:
    metadata = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
    return document | {"metadata": metadata}
