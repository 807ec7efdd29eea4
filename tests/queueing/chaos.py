"""Disturbances of a long queue: nodes that change, foreign pods, and an operator whose clock is moved."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from cluster import kwok
from tests.api.gateway_support import Kubernetes
from tests.faults.process import OperatorProcess
from trainyard_kube.errors import ApiError, ApiRefusedError

Object = dict[str, Any]
POOL = "campaign/pool"
"""Label of the pool of a node; kwok manages all nodes with `type: kwok`."""
_NODES, _PODS = "/api/v1/nodes", "/api/v1/namespaces/{}/pods"
FOREIGN = "foreign"
_OUT_AT_ONCE = 0.25
"""Share of the nodes that are disturbed at the same time."""


class Chaos:
    """Disturbs a cluster until `stop`, which repairs it.

    Args:
        kubernetes: The cluster; its nodes have the label POOL.
        operator: Killed and started with another clock.
        seed: Of what happens.
        pause: Mean seconds between two disturbances.
    """

    def __init__(self, kubernetes: Kubernetes, operator: OperatorProcess, *, seed: int, pause: float) -> None:
        self._kubernetes, self._client, self._operator = kubernetes, kubernetes.client, operator
        self._dice, self._pause = random.Random(seed), pause
        self._nodes: list[str] = sorted(node["metadata"]["name"] for node in self._client.get(_NODES)["items"])
        self._most = max(1, int(len(self._nodes) * _OUT_AT_ONCE))
        self._repairs: list[tuple[str, Callable[[], None]]] = []
        self._count = 0
        self.done: dict[str, int] = {}
        self.errors: list[str] = []
        self.kills: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the disturbances."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and repair every node."""
        self._stop.set()
        self._thread.join(60)
        while self._repairs:
            self._repair(0)

    def _run(self) -> None:
        acts = (self.cordon, self.drain, self.lose, self.relabel, self.add, self.intrude, self.move_clock)
        weights = (3, 3, 3, 3, 2, 4, 1)
        while not self._stop.wait(self._dice.expovariate(1 / self._pause)):
            try:
                if self._repairs and (len(self._repairs) >= self._most or self._dice.random() < 0.4):
                    self._repair(self._dice.randrange(len(self._repairs)))
                else:
                    act = self._dice.choices(acts, weights)[0]
                    act()
                    self.done[act.__name__] = self.done.get(act.__name__, 0) + 1
            except (ApiError, AssertionError) as error:
                self.errors.append(str(error))

    def _repair(self, number: int) -> None:
        _, repair = self._repairs.pop(number)
        repair()

    def _untouched(self) -> str:
        touched = {node for node, _ in self._repairs}
        return self._dice.choice([node for node in self._nodes if node not in touched])

    def _patch(self, node: str, body: Object, part: str = "") -> None:
        self._client.patch(f"{_NODES}/{node}{part}", body)

    # --- disturbances -------------------------------------------------------------------------------------------------

    def cordon(self) -> None:
        """Cordon a node."""
        node = self._untouched()
        self._patch(node, {"spec": {"unschedulable": True}})
        self._repairs.append((node, lambda: self._patch(node, {"spec": {"unschedulable": None}})))

    def drain(self) -> None:
        """Cordon a node and evict its pods, as `kubectl drain` does."""
        node = self._untouched()
        self._patch(node, {"spec": {"unschedulable": True}})
        self._repairs.append((node, lambda: self._patch(node, {"spec": {"unschedulable": None}})))
        for namespace, name in self._pods_on(node):
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": namespace},
            }
            self._post(f"{_PODS.format(namespace)}/{name}/eviction", body)

    def lose(self) -> None:
        """Make a node unreachable, then delete its pods by force, as an administrator does."""
        node = self._untouched()
        self._patch(node, {"metadata": {"labels": {"type": "lost"}}})
        ready = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "gone"}
        self._patch(node, {"status": {"conditions": [ready]}}, "/status")
        self._repairs.append((node, lambda: self._patch(node, {"metadata": {"labels": {"type": "kwok"}}})))
        self._stop.wait(self._dice.uniform(0.0, 3.0))
        self._delete_pods(node)

    def relabel(self) -> None:
        """Move a node, with its pods, to the other pool."""
        node = self._untouched()
        labels = self._client.get(f"{_NODES}/{node}")["metadata"]["labels"]
        mine = labels[POOL]
        other = "b" if mine == "a" else "a"
        self._patch(node, {"metadata": {"labels": {POOL: other}}})
        self._repairs.append((node, lambda: self._patch(node, {"metadata": {"labels": {POOL: mine}}})))

    def add(self) -> None:
        """Add a node; the repair removes it with its pods."""
        self._count += 1
        name = f"extra-{self._count}"
        body = kwok.node(name)
        body["metadata"]["labels"][POOL] = "a"
        self._client.apply(f"{_NODES}/{name}", body)
        self._client.apply(f"{_NODES}/{name}/status", body)
        self._repairs.append((name, lambda: self._remove(name)))

    def intrude(self) -> None:
        """Start a foreign pod with GPUs; the repair deletes it."""
        self._count += 1
        name, gpus = f"foreign-{self._count}", self._dice.choice((1, 2, 4, 8))
        container = {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": FOREIGN},
            "spec": {
                "nodeSelector": {POOL: "a"},
                "tolerations": [{"operator": "Exists"}],
                "containers": [container],
                "restartPolicy": "Never",
            },
        }
        self._post(_PODS.format(FOREIGN), body)
        path = f"{_PODS.format(FOREIGN)}/{name}"
        self._repairs.append((f"{FOREIGN}/{name}", lambda: self._client.delete(path, {"gracePeriodSeconds": 0})))

    def move_clock(self) -> None:
        """Kill the operator and restart it with a clock that is hours off, at once or a bit later."""
        hours = self._dice.choice((-26.0, -1.0, 1.0, 26.0))
        after = self._dice.choice((0.0, 5.0))
        self._operator.environment["CAMPAIGN_CLOCK"] = f"{hours * 3600}:{after}"
        self.kills.append(time.time())
        self._operator.crash()

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _post(self, path: str, body: Object) -> None:
        try:
            self._client._request("POST", path, body)
        except ApiRefusedError as error:
            if error.code not in (404, 409, 429):  # deleted meanwhile, or terminating
                raise

    def _pods_on(self, node: str) -> list[tuple[str, str]]:
        pods = self._client.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")["items"]
        return [(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods]

    def _delete_pods(self, node: str) -> None:
        for namespace, name in self._pods_on(node):
            self._client.delete(f"{_PODS.format(namespace)}/{name}", {"gracePeriodSeconds": 0})

    def _remove(self, node: str) -> None:
        self._client.delete(f"{_NODES}/{node}")
        self._delete_pods(node)
