"""A ModelDeployment of a team; the test acts as the kubelet, and as the proxy of each replica."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.api.gateway_support import until
from tests.api.operator_support import NODE, Object, Team, TrainingJob
from trainyard_crds.modeldeployment_status import AdapterState
from trainyard_crds.serving import STATE_PATH, STATUS_PORT, AdapterSet, ReplicaAdapter, ReplicaPhase, ReplicaState

_HOSTS = (f"127.77.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))
"""Addresses of replicas: all of 127.0.0.0/8 is this machine."""


def deploy(team: Team, name: str, **spec: Any) -> Deployed:
    """Create a ModelDeployment on the CPU."""
    body = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": team.namespace},
        "spec": {"model": {"source": "hf://org/base"}, "resources": {"gpus": 0}, **spec},
    }
    path = f"/apis/trainyard.dev/v1alpha1/namespaces/{team.namespace}/modeldeployments/{name}"
    created = team.client.apply(path, body)
    return Deployed(team, name, created["metadata"]["uid"])


def trained(job: TrainingJob) -> str:
    """Bring a TrainingJob to its end with one checkpoint, and return the checkpoint's digest."""
    job.finish(job.run())
    status = job.wait("Succeeded")
    return str(status["checkpoints"][-1]["digest"])


@dataclass
class Replica:
    """The proxy of one pod.

    Attributes:
        host: Its address.
        adapters: The adapter set that it has read; it serves all of them.
        asked: How often its state was read.
    """

    host: str
    adapters: AdapterSet = field(default_factory=lambda: AdapterSet(version=""))
    asked: int = 0

    def state(self) -> ReplicaState:
        loaded = [
            ReplicaAdapter(
                name=one.name,
                identity=one.artifact.identity,
                served=one.artifact.identity,
                state=AdapterState.LOADED,
            )
            for one in self.adapters.adapters
        ]
        return ReplicaState(phase=ReplicaPhase.SERVING, adapter_set=self.adapters.version, adapters=loaded, ready=True)


@contextmanager
def replica() -> Iterator[Replica]:
    """A proxy that answers on an address of its own."""
    found = Replica(next(_HOSTS))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked += 1
            body = found.state().model_dump_json(by_alias=True, exclude_none=True).encode()
            self.send_response(200 if self.path == STATE_PATH else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer((found.host, STATUS_PORT), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Deployed:
    """One ModelDeployment."""

    def __init__(self, team: Team, name: str, uid: str) -> None:
        self.team, self.client, self.name, self.uid = team, team.client, name, uid
        self.child_name = f"{name}-{uid[:8]}"
        self.path = f"/apis/trainyard.dev/v1alpha1/namespaces/{team.namespace}/modeldeployments/{name}"

    def read(self) -> Object:
        return self.client.get(self.path)

    def status(self) -> Object:
        found: Object = self.read().get("status", {})
        return found

    def condition(self, kind: str) -> Object:
        found = [entry for entry in self.status().get("conditions", []) if entry["type"] == kind]
        return found[0] if found else {}

    def patch(self, **spec: Any) -> None:
        self.client.patch(self.path, {"spec": spec})

    def wait(self, kind: str, reason: str) -> Object:
        """Wait until a condition has a reason, and return the status."""
        try:
            until(lambda: self.condition(kind).get("reason") == reason)
        except AssertionError as error:
            raise AssertionError(f"{kind} is not {reason}: {json.dumps(self.status(), indent=1)}") from error
        return self.status()

    def deployment(self) -> Object:
        """Wait for the Deployment."""
        path = f"/apis/apps/v1/namespaces/{self.team.namespace}/deployments/{self.child_name}"
        until(lambda: self.child_name in self.team.names("deployments", "apps/v1"))
        return self.client.get(path)

    def adapter_set(self) -> AdapterSet:
        """Return the mounted adapter set."""
        path = f"/api/v1/namespaces/{self.team.namespace}/configmaps/{self.child_name}-adapters"
        return AdapterSet.model_validate_json(next(iter(self.client.get(path)["data"].values())))

    def pods(self) -> list[Object]:
        selector = f"trainyard.dev/modeldeployment%3D{self.name}"
        path = f"/api/v1/namespaces/{self.team.namespace}/pods?labelSelector={selector}"
        found: list[Object] = self.client.get(path)["items"]
        return found

    def start(self, proxy: Replica) -> Object:
        """Start the first pod that is not bound, as the kubelet does, and let its proxy have the adapter set."""
        pod = until(lambda: next((one for one in self.pods() if "nodeName" not in one["spec"]), None))
        name = pod["metadata"]["name"]
        path = f"/api/v1/namespaces/{self.team.namespace}/pods/{name}"
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"name": NODE}}
        self.team.kubernetes.kubectl("create", "--raw", f"{path}/binding", "-f", "-", text=json.dumps(body))
        proxy.adapters = self.adapter_set()
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        status = {"phase": "Running", "podIP": proxy.host, "podIPs": [{"ip": proxy.host}], "conditions": conditions}
        self.client.patch(f"{path}/status", {"status": status})
        return pod
