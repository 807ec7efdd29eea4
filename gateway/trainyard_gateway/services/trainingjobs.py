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
"""Lists in progress at once: each holds up to a page and a chunk of objects in memory."""


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
        newest: list[Object] = []
        total = 0
        async with self._lists:
            async for chunk in self._chunks(token, namespace):
                selected = [document for document in chunk if not phases or _phase(document) in phases]
                total += len(selected)
                newest = sorted(newest + selected, key=_age, reverse=True)[: offset + limit]
        return Page([_without_managed_fields(document) for document in newest[offset:]], total)

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
