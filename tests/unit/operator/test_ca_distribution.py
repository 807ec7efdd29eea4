"""The CA certificate in namespaces that get and lose TrainingJobs while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import new_job
from tests.unit.timeouts import TIMEOUT
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import NotFoundError
from trainyard_kube.store import Store
from trainyard_operator.ca_distribution import CaDistributor
from trainyard_operator.settings import Settings
from trainyard_operator.trainingjob.resources import SPECS, ResourceKind

SETTINGS = Settings(
    namespace="system",
    trainer_image="trainer",
    operator_image="operator",
    serving_gpu_image="vllm",
    serving_cpu_image="server",
)


class Cluster:
    """A fake API server that runs a callback while it answers."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.during: dict[str, Callable[[], None]] = {}
        self.done: asyncio.Queue[str] = asyncio.Queue()

    async def get(self, url: str) -> Any:
        if url not in self.objects:
            raise NotFoundError(404, "NotFound", "gone")
        return self.objects[url]

    async def create(self, url: str, body: Any) -> Any:
        self.objects[f"{url}/{body['metadata']['name']}"] = body
        return body

    async def list_all(self, _url: str, _query: Any) -> Any:
        return [body for body in self.objects.values() if body["kind"] == "ConfigMap"], "1"

    async def apply(self, url: str, body: Any) -> Any:
        await self._answer("apply")
        self.objects[url] = body
        self.done.put_nowait("apply")

    async def delete(self, url: str) -> None:
        await self._answer("delete")
        self.objects.pop(url, None)
        self.done.put_nowait("delete")

    async def _answer(self, verb: str) -> None:
        await asyncio.sleep(0)
        self.during.pop(verb, lambda: None)()

    def published(self) -> set[str]:
        return {body["metadata"]["namespace"] for body in self.objects.values() if body["kind"] == "ConfigMap"}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def store() -> Store:
    return Store(SPECS)


def distributor_of(cluster: Cluster, store: Store) -> CaDistributor:
    return CaDistributor(cluster, store, ServerClock(), SETTINGS)  # type: ignore[arg-type]


async def changes(cluster: Cluster, count: int) -> list[str]:
    """Return the next requests that changed a namespace."""
    async with asyncio.timeout(TIMEOUT):
        return [await cluster.done.get() for _ in range(count)]


async def test_namespace_that_loses_its_last_job_during_the_write_loses_the_certificate(
    cluster: Cluster, store: Store
) -> None:
    job, distributor = new_job(), distributor_of(cluster, store)
    store.put(ResourceKind.TRAINING_JOBS, job)

    def deleted() -> None:
        store.remove(ResourceKind.TRAINING_JOBS, job)
        distributor.namespace_changed(job["metadata"]["namespace"])

    cluster.during["apply"] = deleted
    running = asyncio.create_task(distributor.run())
    assert await changes(cluster, 2) == ["apply", "delete"]
    assert cluster.published() == set()
    running.cancel()


async def test_namespace_that_gets_a_job_during_the_removal_has_the_certificate(cluster: Cluster, store: Store) -> None:
    job, distributor = new_job(), distributor_of(cluster, store)
    namespace = job["metadata"]["namespace"]
    store.put(ResourceKind.TRAINING_JOBS, job)
    running = asyncio.create_task(distributor.run())
    assert await changes(cluster, 1) == ["apply"]

    def created() -> None:
        other = new_job()
        other["metadata"] |= {"uid": "another", "resourceVersion": "1000"}
        store.put(ResourceKind.TRAINING_JOBS, other)
        distributor.namespace_changed(namespace)

    cluster.during["delete"] = created
    store.remove(ResourceKind.TRAINING_JOBS, job)
    distributor.namespace_changed(namespace)
    assert await changes(cluster, 2) == ["delete", "apply"]
    assert cluster.published() == {namespace}
    running.cancel()
