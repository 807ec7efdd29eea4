"""The builtin admission controller on a cluster of one node, without an API server."""

from __future__ import annotations

import datetime as dt
from typing import Any

from trainyard_kube.resource import Key
from trainyard_operator.admission.builtin.controller import BuiltinAdmission
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.inventory import Holder
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Node
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate
from trainyard_operator.trainingjob.resources import job_key
from trainyard_operator.trainingjob.spec import parse_spec

GPU = "nvidia.com/gpu"
NOW = dt.datetime(2026, 1, 2, 10, tzinfo=dt.UTC)


class QueueFixture:
    """A cluster of one node, a clock, and the jobs in it."""

    def __init__(self, gpus: int, policy: Policy | None = None) -> None:
        self.seconds, self.added, self.policy = 0.0, list[str](), policy or Policy()
        self.jobs: dict[Key, Observed] = {}
        self.node = Node(name="n0", allocatable={GPU: gpus})
        self.controller = self.restart()

    def restart(self) -> BuiltinAdmission:
        """Replace the controller by one of a new process that observes the same jobs."""
        self.controller = queue = BuiltinAdmission(
            observe=self.observe,
            add=lambda key: self.added.append(key.name),
            now=lambda: NOW + dt.timedelta(seconds=self.seconds),
            clock=lambda: self.seconds,
            policy=self,
        )
        queue.inventory.put_node(self.node)
        for key in self.jobs:
            queue.mark_dirty(key)
        return queue

    def current(self) -> Policy:
        """Return the policy in force."""
        return self.policy

    def describe(self) -> dict[str, Any]:
        """Return the policy for the debug endpoint."""
        return {}

    def observe(self, key: Key) -> TrainingJobCandidate | None:
        observed = self.jobs.get(key)
        return None if observed is None else TrainingJobCandidate(observed)

    def submit(self, name: str, gpus: int = 1, *, priority: int | None = None, **spec: Any) -> None:
        queue = {} if priority is None else {"queue": {"priority": priority}}
        job = {
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": name,
                "generation": 1,
                "creationTimestamp": "2026-01-02T10:00:00Z",
            },
            "spec": {"resources": {"gpus": gpus}, **queue, **spec},
            "status": {},
        }
        self.put(name, _observed(job))

    def put(self, name: str, observed: Observed) -> None:
        key = job_key("team", name)
        self.jobs[key] = observed
        self.controller.mark_dirty(key)

    def change(self, name: str, *, child: dict[str, Any] | None = None, **parts: Any) -> None:
        before = self.jobs[job_key("team", name)]
        job = {**before.job, **{key: {**before.job[key], **value} for key, value in parts.items()}}
        self.put(name, _observed(job, child=before.child if child is None else child))

    def start(self, name: str, gpus: int = 1) -> None:
        """Create its Job and bind its pod."""
        self.start_on(name, "n0", gpus)

    def start_on(self, name: str, node: str, gpus: int = 1) -> None:
        """Create its Job and bind its pod to a given node."""
        stamp = (NOW + dt.timedelta(seconds=self.seconds)).isoformat()
        attempts = {"attempts": [{"number": 1, "startedAt": stamp}]}
        self.change(
            name,
            status=attempts,
            child={"metadata": {"creationTimestamp": stamp}, "spec": {"suspend": False}, "status": {}},
        )
        self.bind(name, gpus, node)

    def bind(self, name: str, gpus: int = 1, node: str = "n0") -> None:
        """Bind its pod."""
        self.controller.inventory.put_pod(name, Holder(name, name, node, {GPU: gpus}, f"team/{name}"))

    def write(self, name: str) -> None:
        """Write the current decision into its status."""
        found = self.decision(name)
        admitted = {"type": "Admitted", "status": "False", "reason": found.reason, "message": found.message}
        self.change(name, status={"queue": found.queue, "conditions": [admitted]})

    def end(self, name: str) -> None:
        """End its pod and complete its Job; the status is not written yet."""
        child = {"metadata": {}, "spec": {}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        self.change(name, child=child)
        self.controller.inventory.put_pod(name, None)

    def cycle(self, seconds: float = 0.0) -> None:
        self.seconds += seconds
        self.controller.run_cycle()

    def decision(self, name: str) -> Admission:
        return self.controller.decide(TrainingJobCandidate(self.jobs[job_key("team", name)]))


def _observed(job: dict[str, Any], **children: Any) -> Observed:
    spec, error = parse_spec(job["spec"])
    return Observed(obj=job, spec=spec, spec_error=error, **children)


def long_queue(waiting: int, nodes: int) -> QueueFixture:
    """A queue in which all GPUs are held and jobs of three sizes wait, each with its first status published."""
    queue = QueueFixture(8)
    for number in range(1, nodes):
        queue.controller.inventory.put_node(Node(name=f"n{number}", allocatable={GPU: 8}))
    for number in range(nodes * 8):
        queue.submit(f"running-{number}")
    queue.cycle()
    for number in range(nodes * 8):
        queue.start_on(f"running-{number}", f"n{number // 8}")
    for number in range(waiting):
        queue.submit(f"waiting-{number:05}", (1, 2, 8)[number % 3], priority=(1, 5, 9)[number % 7 % 3])
    queue.cycle(1)
    return queue
