"""The shell round the plan, where its requests are refused."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.trainingjob.world import CHILD, NAME, NAMESPACE, SETTINGS, new_job
from trainyard_operator.clock import ServerClock
from trainyard_operator.errors import NotFoundError
from trainyard_operator.kube.events import EventWriter
from trainyard_operator.kube.store import Key, ResourceKind, Store
from trainyard_operator.trainingjob.reconcile import Reconciler


class Empty:
    """An API server on which everything has been deleted."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def get(self, url: str) -> Any:
        self.requests.append(f"GET {url}")
        raise NotFoundError(404, "NotFound", "gone")

    async def merge(self, url: str, _: Any) -> Any:
        self.requests.append(f"PATCH {url}")
        raise NotFoundError(404, "NotFound", "gone")


async def test_a_job_that_is_gone_is_not_worked_on_while_its_watch_is_late() -> None:
    store, empty = Store(), Empty()
    key = store.put(ResourceKind.TRAINING_JOBS, {**new_job(), "status": {"phase": "Running", "jobName": CHILD}})
    assert key == Key(NAMESPACE, NAME)
    kube: Any = empty
    clock = ServerClock()
    reconciler = Reconciler(kube, store, EventWriter(kube, clock, "one"), clock, settings=SETTINGS)
    await reconciler.reconcile(key)
    assert [line.split()[0] for line in empty.requests] == ["GET", "PATCH"]
    assert store.all_keys() == []
    await reconciler.reconcile(key)
    assert len(empty.requests) == 2
