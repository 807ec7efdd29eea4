"""Replicas with GPUs in the builtin queue: admitted one by one, counted as holders, never preempted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.queueing.queue_fixture import GPU, NOW, QueueFixture
from tests.unit.operator.modeldeployment.support import NAME, NAMESPACE, observed
from trainyard_kube.resource import Key
from trainyard_operator.admission.builtin.controller import BuiltinAdmission
from trainyard_operator.admission.candidate import observe_by_kind
from trainyard_operator.modeldeployment.queue_adapter import NextReplica, candidate, next_key, owner_key
from trainyard_operator.modeldeployment.replica_count import granted_replicas
from trainyard_operator.modeldeployment.resources import MODEL_DEPLOYMENTS, deployment_key
from trainyard_operator.queue.free_capacity import FreeCapacity
from trainyard_operator.queue.inventory import Holder
from trainyard_operator.queue.models import Admitted
from trainyard_operator.queue.pool import Node
from trainyard_operator.queue.preemption import victims
from trainyard_operator.trainingjob.resources import ResourceKind, job_key

KEY = deployment_key(NAMESPACE, NAME)
SPEC: dict[str, Any] = {"model": {"source": "hf://org/base"}, "resources": {"gpus": 1}, "replicas": 2}


class Rig:
    """A builtin queue over one node, a ModelDeployment, and TrainingJobs."""

    def __init__(self, gpus: int, **spec: Any) -> None:
        self.jobs, self.found = QueueFixture(0), observed({**SPEC, **spec})
        self.queue = BuiltinAdmission(
            observe=observe_by_kind(
                {
                    ResourceKind.TRAINING_JOBS: self.jobs.observe,
                    MODEL_DEPLOYMENTS: lambda key: candidate(key, self.found),
                }
            ),
            add=lambda key: None,
            now=lambda: NOW,
            clock=lambda: 0.0,
            policy=self.jobs,
        )
        self.queue.inventory.put_node(Node(name="n0", allocatable={GPU: gpus}))

    def step(self) -> int:
        """Run a cycle, apply its decision as the Deployment, and return the replicas."""
        for key in (KEY, next_key(KEY)):
            self.queue.mark_dirty(key)
        self.queue.run_cycle()
        replicas = granted_replicas(self.found, self.queue.decide(NextReplica(self.found)))
        self.scale(replicas)
        return replicas

    def scale(self, replicas: int) -> None:
        deployment = {"metadata": {"name": "bot-01234567", "uid": "d"}, "spec": {"replicas": replicas}}
        self.found = replace(self.found, deployment=deployment)


def test_replicas_are_admitted_one_by_one_as_far_as_gpus_reach() -> None:
    rig = Rig(2, replicas=3)
    assert [rig.step() for _ in range(4)] == [1, 2, 2, 2]
    decision = rig.queue.decide(NextReplica(rig.found))
    assert (decision.admitted, decision.reason) == (False, "WaitingForGpus")
    assert decision.queue is not None
    assert decision.queue["position"] == 1


def test_replica_that_has_its_node_is_counted_once() -> None:
    rig = Rig(2)
    rig.step()
    owner = f"{NAMESPACE}/{rig.found.uid}"
    rig.queue.inventory.put_pod("p", Holder("p", f"{NAMESPACE}/bot-1", "n0", {GPU: 1}, owner))
    assert rig.step() == 2


def test_job_gets_no_gpu_of_a_replica_and_waits_behind_it() -> None:
    rig = Rig(1)
    rig.step()
    rig.jobs.submit("job")
    rig.queue.mark_dirty(job_key("team", "job"))
    rig.step()
    found = rig.jobs.observe(job_key("team", "job"))
    assert found is not None
    assert rig.queue.decide(found).admitted is False


def test_replicas_that_end_free_their_gpus() -> None:
    rig = Rig(1)
    rig.step()
    rig.found = replace(rig.found, spec=rig.found.spec.model_copy(update={"stopped": True}))
    assert rig.step() == 0
    rig.step()
    assert rig.queue.describe()["holding"] == []


def test_replicas_without_gpus_pass_no_queue() -> None:
    rig = Rig(0, resources={"gpus": 0}, replicas=3)
    assert rig.step() == 3


def test_running_replicas_are_never_preempted() -> None:
    rig = Rig(1)
    rig.step()
    owner = f"{NAMESPACE}/{rig.found.uid}"
    rig.queue.inventory.put_pod("p", Holder("p", f"{NAMESPACE}/bot-1", "n0", {GPU: 1}, owner))
    found = candidate(KEY, rig.found)
    held = found.entry(enqueued_at=NOW, now=NOW, grant=None, preempted=False, history=lambda *_: None).holding
    assert isinstance(held, Admitted)
    head = replace(held.request, uid="head", priority=10, preemptible=True)
    capacity = _capacity(rig, [held])
    assert victims(head, capacity, rig.queue.inventory, [held]) is None
    trainee = replace(held, request=replace(held.request, preemptible=True))
    assert victims(head, _capacity(rig, [trainee]), rig.queue.inventory, [trainee]) == [trainee]


def _capacity(rig: Rig, admitted: list[Admitted]) -> FreeCapacity:
    return FreeCapacity(rig.queue.inventory, admitted)


def test_keys_lead_back_to_the_object() -> None:
    assert owner_key(next_key(KEY)) == owner_key(KEY) == KEY
    other = Key("trainingjobs", "team", "a#next")
    assert owner_key(other) == other
    assert isinstance(candidate(next_key(KEY), observed(SPEC)), NextReplica)
