"""A cluster of one node, as the queue of one operator knows it; jobs, pods and the node come and go as a test says."""

from __future__ import annotations

import datetime as dt
from typing import Any

from tests.unit.operator.queue.state_model import GPU, NOW
from tests.unit.operator.trainingjob.state_model import observed_of
from trainyard_operator.admission.builtin import GpuQueue
from trainyard_operator.admission.decision import Admission
from trainyard_operator.kube.store import Key
from trainyard_operator.queue.inventory import Holder
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Node
from trainyard_operator.trainingjob.model import Observed


class Yard:
    """A cluster of one node, a clock, and the jobs in it."""

    def __init__(self, gpus: int, policy: Policy | None = None) -> None:
        self.seconds, self.added, self.policy = 0.0, list[str](), policy or Policy()
        self.jobs: dict[Key, Observed] = {}
        self.node = Node(name="n0", allocatable={GPU: gpus})
        self.queue = self.restart()

    def restart(self) -> GpuQueue:
        """A new process that knows the same jobs."""
        self.queue = queue = GpuQueue(
            observe=self.jobs.get,
            add=lambda key: self.added.append(key.name),
            now=lambda: NOW + dt.timedelta(seconds=self.seconds),
            clock=lambda: self.seconds,
            policy=lambda: self.policy,
        )
        queue.inventory.put_node(self.node)
        for key in self.jobs:
            queue.look(key)
        return queue

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
        self.put(name, observed_of(job))

    def put(self, name: str, observed: Observed) -> None:
        key = Key("team", name)
        self.jobs[key] = observed
        self.queue.look(key)

    def change(self, name: str, *, child: dict[str, Any] | None = None, **parts: Any) -> None:
        before = self.jobs[Key("team", name)]
        job = {**before.job, **{key: {**before.job[key], **value} for key, value in parts.items()}}
        self.put(name, observed_of(job, child=before.child if child is None else child))

    def start(self, name: str, gpus: int = 1) -> None:
        """Its Job is made and its pod is bound."""
        self.start_on(name, "n0", gpus)

    def start_on(self, name: str, node: str, gpus: int = 1) -> None:
        """The same on another node."""
        stamp = (NOW + dt.timedelta(seconds=self.seconds)).isoformat()
        attempts = {"attempts": [{"number": 1, "startedAt": stamp}]}
        self.change(
            name,
            status=attempts,
            child={"metadata": {"creationTimestamp": stamp}, "spec": {"suspend": False}, "status": {}},
        )
        self.bind(name, gpus, node)

    def bind(self, name: str, gpus: int = 1, node: str = "n0") -> None:
        """Its pod is bound."""
        self.queue.inventory.put_pod(name, Holder(name, name, node, {GPU: gpus}, f"team/{name}"))

    def write(self, name: str) -> None:
        """Its status says what it is answered."""
        found = self.answer(name)
        admitted = {"type": "Admitted", "status": "False", "reason": found.reason, "message": found.message}
        self.change(name, status={"queue": found.queue, "conditions": [admitted]})

    def end(self, name: str) -> None:
        """Its pod is over and its Job complete; the status follows later."""
        child = {"metadata": {}, "spec": {}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        self.change(name, child=child)
        self.queue.inventory.put_pod(name, None)

    def round(self, seconds: float = 0.0) -> None:
        self.seconds += seconds
        self.queue.round()

    def answer(self, name: str) -> Admission:
        return self.queue.admission(self.jobs[Key("team", name)])
