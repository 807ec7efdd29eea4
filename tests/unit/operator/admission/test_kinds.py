"""A second kind passes the builtin queue beside TrainingJobs, without a change of the queue or the controller."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from tests.queueing.queue_fixture import GPU, NOW, QueueFixture
from trainyard_kube.resource import Key
from trainyard_operator.admission.builtin.controller import BuiltinAdmission
from trainyard_operator.admission.candidate import (
    Grant,
    ObserveCandidate,
    Published,
    QueueEntry,
    RunHistory,
    observe_by_kind,
)
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.models import Admitted, Request
from trainyard_operator.queue.pool import Node, Pool
from trainyard_operator.trainingjob.resources import ResourceKind, job_key

KIND, POOL = "servers", Pool(GPU)


@dataclass
class Server:
    """A server that holds one GPU as long as it exists."""

    name: str
    is_running: bool = False
    is_final: bool = False
    is_wanted: bool = True
    enqueued_at: dt.datetime | None = None
    published: Published | None = None
    job_uid: str | None = None
    pool: Pool = POOL

    @property
    def key(self) -> Key:
        return Key(KIND, "team", self.name)

    @property
    def uid(self) -> str:
        return self.name

    @property
    def created(self) -> tuple[dt.datetime, int]:
        return NOW, 0

    @property
    def queue_status(self) -> dict[str, Any]:
        return {}

    @property
    def summary(self) -> dict[str, Any]:
        return {"gpus": 1, "nodes": 1, "priority": 9}

    def completed_run(self, now: dt.datetime) -> float | None:
        return None

    def entry(
        self, *, enqueued_at: dt.datetime, now: dt.datetime, grant: Grant | None, preempted: bool, history: RunHistory
    ) -> QueueEntry:
        request = Request(
            uid=self.uid, namespace="team", pool=self.pool, gpus=1, nodes=1, priority=9, enqueued_at=enqueued_at
        )
        if grant is None:
            return QueueEntry(waiting=request)
        return QueueEntry(
            holding=Admitted(request=request, placement=grant.nodes, admitted_at=grant.admitted_at, releasing=preempted)
        )

    def kueue_admission(self, **_: Any) -> Admission:
        raise NotImplementedError


def test_server_and_job_share_one_queue() -> None:
    jobs, servers = QueueFixture(0), {Key(KIND, "team", "web"): Server("web")}
    adapters: dict[str, ObserveCandidate] = {KIND: servers.get, ResourceKind.TRAINING_JOBS: jobs.observe}
    added = list[Key]()
    controller = BuiltinAdmission(
        observe=observe_by_kind(adapters), add=added.append, now=lambda: NOW, clock=lambda: 0.0, policy=jobs
    )
    controller.inventory.put_node(Node(name="n0", allocatable={GPU: 1}))
    jobs.submit("job")
    server, job = Key(KIND, "team", "web"), job_key("team", "job")
    for key in (job, server):
        controller.mark_dirty(key)
    controller.run_cycle()
    decisions = {key: decide(controller, adapters, key) for key in (server, job)}
    assert (decisions[server].admitted, decisions[server].nodes) == (True, ("n0",))
    assert (decisions[job].admitted, decisions[job].reason) == (False, "WaitingForGpus")
    assert added == [server, job]


def decide(controller: BuiltinAdmission, adapters: dict[str, ObserveCandidate], key: Key) -> Admission:
    candidate = adapters[key.kind](key)
    assert candidate is not None
    return controller.decide(candidate)


def test_kind_without_an_adapter_does_not_pass_the_queue() -> None:
    assert observe_by_kind({})(Key("notes", "team", "a")) is None
