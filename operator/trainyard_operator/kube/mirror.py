"""What is known of one collection, kept true by watch events and by a list now and then, in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from trainyard_kube.client import KubeClient
from trainyard_kube.paths import Object

Value = TypeVar("Value")
_VALUE = "value"


class Mirror(Generic[Value]):
    """Hands on the newest version of each object.

    Args:
        url: The collection.
        read: What is kept of an object; None where it does not count.
        put: Takes an object's UID and what is kept of it now, None when it is gone; whether that changed anything.
    """

    def __init__(
        self, url: str, read: Callable[[Object], Value | None], put: Callable[[str, Value | None], bool]
    ) -> None:
        self._url, self._read, self._put = url, read, put
        self._versions: dict[str, int] = {}

    def take(self, event: Any) -> bool:
        """Take in a watch event; whether it changed anything."""
        obj = event["object"]
        if event["type"] == "DELETED":
            self._versions.pop(obj["metadata"]["uid"], None)
            return self._put(obj["metadata"]["uid"], None)
        return self._take(self._trimmed(obj))

    async def relist(self, kube: KubeClient) -> bool:
        """Take in a complete list; whether it changed anything.

        Raises:
            ApiError: the list failed.
        """
        objects, version = await kube.list_all(self._url, keep=self._trimmed)
        return self._replace(objects, int(version))

    def _replace(self, objects: list[Object], version: int) -> bool:
        listed, changed = {obj["uid"] for obj in objects}, False
        for uid in [uid for uid, known in self._versions.items() if uid not in listed and known <= version]:
            del self._versions[uid]  # what is newer than the list stays
            changed |= self._put(uid, None)
        for obj in objects:
            changed |= self._take(obj)
        return changed

    def _take(self, obj: Object) -> bool:
        """Put it unless something newer is known: a list and a watch may cross."""
        if self._versions.get(obj["uid"], -1) >= obj["version"]:
            return False
        self._versions[obj["uid"]] = obj["version"]
        return self._put(obj["uid"], obj[_VALUE])

    def _trimmed(self, obj: Object) -> Object:
        metadata = obj["metadata"]
        return {"uid": metadata["uid"], "version": int(metadata["resourceVersion"]), _VALUE: self._read(obj)}
