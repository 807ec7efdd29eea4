from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from trainyard_crds.trainingjob_status import Phase
from trainyard_gateway.services.objects import ObjectReader, UserObjects
from trainyard_gateway.services.trainingjobs import TrainingJobService

COLLECTION = "/apis/trainyard.dev/v1alpha1/namespaces/team/trainingjobs"


def training_job(name: str, created: str = "2026-01-01T00:00:00Z", phase: str | None = "Running") -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": created, "managedFields": [{}]}
    return {"metadata": metadata, "spec": {}} | ({} if phase is None else {"status": {"phase": phase}})


class Tracked(dict[str, Any]):
    """A document that a weak reference can refer to."""


class FakeApi:
    """Serves chunks of a list, or one object; records the requests."""

    def __init__(self, *chunks: list[dict[str, Any]]) -> None:
        self.chunks = chunks
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    async def get(self, path: str, token: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        self.requests.append((path, token, dict(query)))
        if path != COLLECTION:
            return training_job(path.rpartition("/")[2])
        number = int(dict(query).get("continue", "0"))
        following = str(number + 1) if number + 1 < len(self.chunks) else ""
        return {"metadata": {"continue": following}, "items": self.chunks[number]}


def service(api: ObjectReader) -> TrainingJobService:
    return TrainingJobService(UserObjects(api))


async def names(reader: TrainingJobService, *phases: Phase, limit: int = 50, offset: int = 0) -> tuple[list[str], int]:
    page = await reader.list_page("secret", "team", phases=phases, limit=limit, offset=offset)
    return [item["metadata"]["name"] for item in page.items], page.total


async def test_list_reads_every_chunk_with_the_callers_token() -> None:
    api = FakeApi([training_job("a")], [training_job("b")])
    assert await names(service(api)) == (["b", "a"], 2)
    chunks = [(COLLECTION, "secret", {"limit": "100"}), (COLLECTION, "secret", {"limit": "100", "continue": "1"})]
    assert api.requests == chunks * 2


async def test_page_deep_in_a_list_keeps_no_other_objects() -> None:
    kept: list[weakref.ref[Tracked]] = []
    alive: list[int] = []

    class Server(FakeApi):
        async def get(self, path: str, token: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
            answer = await super().get(path, token, query)
            gc.collect()
            alive.append(sum(reference() is not None for reference in kept))
            items = [{**item, "spec": Tracked()} for item in answer["items"]]
            kept.extend(weakref.ref(item["spec"]) for item in items)
            return {**answer, "items": items}

    chunks = [[training_job(f"job-{chunk:02}-{item}") for item in range(10)] for chunk in range(20)]
    page = await service(Server(*chunks)).list_page("secret", "team", phases=(), limit=2, offset=190)
    assert [item["metadata"]["name"] for item in page.items] == ["job-00-9", "job-00-8"]
    assert max(alive) <= 2 * 10 + 2


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_list_returns_newest_first_by_page(order: tuple[int, ...]) -> None:
    jobs = [training_job(f"job-{number}", f"2026-01-0{number + 1}T00:00:00Z") for number in order]
    reader = service(FakeApi(jobs[:2], jobs[2:]))
    assert await names(reader, limit=2) == (["job-3", "job-2"], 4)
    assert await names(reader, limit=2, offset=1) == (["job-2", "job-1"], 4)
    assert await names(reader, limit=2, offset=4) == ([], 4)


async def test_list_selects_phases() -> None:
    jobs = [training_job("a"), training_job("b", phase="Failed"), training_job("c", phase=None)]
    reader = service(FakeApi(jobs))
    assert await names(reader, Phase.FAILED) == (["b"], 1)
    assert await names(reader, Phase.FAILED, Phase.RUNNING) == (["b", "a"], 2)


async def test_items_are_complete_objects_without_managed_fields() -> None:
    page = await service(FakeApi([training_job("a")])).list_page("t", "team", phases=(), limit=1, offset=0)
    item = page.items[0]
    assert (item["apiVersion"], item["kind"]) == ("trainyard.dev/v1alpha1", "TrainingJob")
    assert "managedFields" not in item["metadata"]


@pytest.mark.parametrize("name", ["training_001", "training-001"])
async def test_get_accepts_both_spellings_of_a_name(name: str) -> None:
    api = FakeApi()
    document = await service(api).get("secret", "team", name)
    assert document["metadata"]["name"] == "training-001"
    assert "managedFields" not in document["metadata"]
    assert api.requests == [(f"{COLLECTION}/training-001", "secret", {})]
