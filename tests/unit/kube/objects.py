"""Two kinds of objects, and an API server that only lists and watches, for the tests of informers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from trainyard_kube.errors import ApiError
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key, ResourceSpec, StoredSpec

OWNERS, CHILDREN = "owners", "children"
KEY = Key(OWNERS, "team", "one")


def trim(obj: Object) -> Object:
    """The object without its secret."""
    return {key: value for key, value in obj.items() if key != "secret"}


OWNER_SPEC = StoredSpec(
    kind=OWNERS,
    collection="/apis/example.com/v1/{namespace}owners",
    trim=trim,
    is_final=lambda obj: obj["state"] == "Done",
    state=lambda obj: obj["state"],
)
CHILD_SPEC = StoredSpec(
    kind=CHILDREN,
    collection="/api/v1/{namespace}children",
    labels={"managed": "yes"},
    trim=trim,
    owner_uid=lambda obj: str(obj["metadata"]["labels"].get("owner", "")),
    keep_deleted=True,
)
SPECS = (OWNER_SPEC, CHILD_SPEC)
NAMES = ResourceSpec[str](
    kind=OWNERS, collection=OWNER_SPEC.collection, trim=lambda obj: obj["metadata"]["name"] if obj["state"] else None
)
"""A resource of which only the names of objects with a state are kept."""


def owner(version: int, uid: str = "u1", name: str = "one", state: str = "Running") -> Object:
    metadata = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "state": state, "secret": "x"}


def child(version: int, name: str = "c1", namespace: str = "team", owner_uid: str = "u1", **labels: str) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {"managed": "yes", "owner": owner_uid, **labels},
        },
        "state": "Running",
        "secret": "x",
    }


def event(kind: str | None, obj: Object) -> Object:
    return {"type": kind, "object": obj}


def bookmark(version: int) -> Object:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class FakeKube:
    """Answers each list with `items` and each watch with the next script: events, and perhaps an error at the end."""

    def __init__(self, *watches: list[Object | ApiError], items: list[Object] | None = None, version: int = 50) -> None:
        self.items: list[Object] | ApiError = items or []
        self.version, self.watches = version, list(watches)
        self.lists: list[tuple[str, Any]] = []
        self.versions: list[str] = []

    async def list_all(self, url: str, query: Any, keep: Callable[[Object], Any]) -> tuple[list[Any], str]:
        self.lists.append((url, query))
        if isinstance(self.items, ApiError):
            raise self.items
        return [keep(item) for item in self.items], str(self.version)

    async def watch(self, _url: str, _query: Any, version: str, _seconds: int) -> AsyncGenerator[Object]:
        self.versions.append(version)
        for each in self.watches.pop(0):
            if isinstance(each, ApiError):
                raise each
            yield each


class Time:
    """A clock that only `sleep` advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
