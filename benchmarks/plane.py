"""A control plane with fake nodes, set up as the peer's was, and a client that watches it."""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import yaml
from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import termination

from benchmarks.report import ROOT
from cluster import api, binaries, kwok
from cluster.errors import ClusterError

Object = dict[str, Any]
Done = Callable[[], bool]

SHORT, REPORTED, LONG = "bench-short", "bench-reported", "bench-long"
SECONDS = {SHORT: 3, REPORTED: 12}
"""How long a pod runs in a namespace; in LONG it never ends."""
CLAIM = "models"
NODES = 8
_RAISED = ("--kube-api-qps=500", "--kube-api-burst=1000")
"""The defaults (20/30 and 50/100 requests per second) would be what a burst measures."""
_CONNECTIONS = 110


@contextmanager
def control_plane(name: str) -> Iterator[Kubernetes]:
    """Start it under a name, prepare it, and remove it in the end."""
    cluster = api.start(name)
    try:
        plane = cluster.plane
        for part, command in (("controller-manager", plane.controller_manager()), ("scheduler", plane.scheduler())):
            plane.processes.stop(part)
            plane.processes.start(part, [*command, *_RAISED])
        _start_nodes(cluster)
        kubernetes = Kubernetes(cluster)
        kubernetes.namespace(SYSTEM)
        kubernetes.kubectl("apply", "--server-side", "-f", str(ROOT / "crds/manifests/trainingjobs.yaml"))
        until(lambda: _serves_trainingjobs(kubernetes))
        yield kubernetes
    finally:
        cluster.stop(purge=True)


def _start_nodes(cluster: api.Cluster) -> None:
    """Fake nodes whose pods end by themselves: kwok finds the process running and makes the nodes only."""
    stages = cluster.state / "conf" / "bench-stages.yaml"
    stages.write_text(yaml.safe_dump_all(_stages(), sort_keys=False))
    plane, folder = cluster.plane, binaries.ensure([*binaries.API, "kwok"])
    command = [f"--config={stages}" if word.startswith("--config=") else word for word in kwok.command(plane, folder)]
    plane.processes.start("kwok", command)
    kwok.start(plane, folder, NODES)


def _stages() -> list[Object]:
    """The shipped stages, and one for each namespace whose pods end."""
    shipped: list[Object] = list(yaml.safe_load_all(kwok.STAGES.read_text()))
    complete = next(stage for stage in shipped if stage["metadata"]["name"] == "pod-complete")
    text = termination("Finished", step=100, message="Training finished after 100 steps.")
    message = json.dumps(text)  # quoted: the template is YAML
    ours = []
    for namespace, seconds in SECONDS.items():
        stage = copy.deepcopy(complete)
        stage["metadata"]["name"] = f"pod-end-{namespace}"
        stage["spec"]["selector"]["matchExpressions"][-1] = {
            "key": ".metadata.namespace",
            "operator": "In",
            "values": [namespace],
        }
        stage["spec"]["delay"] = {"durationMilliseconds": seconds * 1000}
        lines = stage["spec"]["next"]["statusTemplate"].replace('{{ or $message "" | Quote }}', message).splitlines()
        stage["spec"]["next"]["statusTemplate"] = "\n".join(line for line in lines if "$message" not in line)
        ours.append(stage)
    return [*shipped, *ours]


def _serves_trainingjobs(kubernetes: Kubernetes) -> bool:
    try:
        return kubernetes.client.exists("/apis/trainyard.dev/v1alpha1/trainingjobs")
    except ClusterError:  # 429 while the storage of the new kind is being made
        return False


def prepare_namespace(kubernetes: Kubernetes, namespace: str) -> None:
    """A namespace with a bound claim for models, rows and runs: no provisioner is part of what is measured."""
    kubernetes.namespace(namespace)
    volume = f"{CLAIM}-{namespace}"
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    kubernetes.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "storageClassName": "",
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"name": CLAIM, "namespace": namespace},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": namespace},
            "spec": {
                "accessModes": modes,
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": size},
            },
        },
    )
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{CLAIM}"
    until(lambda: kubernetes.client.get(path)["status"].get("phase") == "Bound")


def training_job(namespace: str, name: str, *, gpus: int, suspend: bool = False) -> Object:
    """A TrainingJob for the fake nodes; it stores into the namespace's claim."""
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "task": "llm",
            "method": "lora",
            "model": {"source": f"pvc://{CLAIM}/tiny"},
            "dataset": {"source": f"pvc://{CLAIM}/train.jsonl"},
            "resources": {
                "gpus": gpus,
                "cpu": "100m",
                "memory": "64Mi",
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
            },
            "storage": {"claimName": CLAIM},
            "suspend": suspend,
        },
    }


class Api:
    """Asynchronous requests with every permission; warm connections for a burst."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server, self._session = server, session
        self.broken_watches: list[str] = []

    async def create(self, path: str, body: Object) -> Object:
        """POST an object; what was created."""
        async with self._session.post(self._server + path, json=body) as answer:
            document: Object = await answer.json()
            assert answer.status < 300, document
            return document

    async def get(self, path: str) -> Object:
        """GET an object or a list."""
        async with self._session.get(self._server + path) as answer:
            document: Object = await answer.json()
            return document

    async def delete(self, path: str) -> None:
        """DELETE an object or a collection, children in the background."""
        async with self._session.delete(self._server + path, params={"propagationPolicy": "Background"}) as answer:
            await answer.read()

    async def warm(self) -> None:
        """Open as many connections as a burst uses."""
        await asyncio.gather(*(self.get("/version") for _ in range(_CONNECTIONS - 10)))

    async def watch(self, path: str, take: Callable[[Object, float], None]) -> None:
        """Hand over every object with news (monotonic seconds of its arrival) until cancelled.

        A watch that the server ends is opened again and said to have ended: what came meanwhile is seen late.
        """
        while True:
            reason = "the server ended it"
            try:
                reason = await self._watch_once(path, take) or reason
            except aiohttp.ClientError as error:
                reason = str(error) or type(error).__name__
            self.broken_watches.append(f"{path}: {reason}")

    async def _watch_once(self, path: str, take: Callable[[Object, float], None]) -> str | None:
        options = {"watch": "true", "timeoutSeconds": "3600"}
        async with self._session.get(self._server + path, params=options) as answer:
            async for line in answer.content:
                at = time.monotonic()
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return str(event["object"].get("message"))
                take(event["object"], at)
        return None


@asynccontextmanager
async def client(kubernetes: Kubernetes) -> AsyncIterator[Api]:
    """An `Api` for as long as the context lasts."""
    authority = kubernetes.cluster.plane.authority
    pair = authority.issue("admin", "/O=system:masters/CN=admin")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(*map(str, pair))
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context, keepalive_timeout=300)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**22) as session:
        yield Api(kubernetes.cluster.server, session)


async def wait_for(done: Done, seconds: float, what: str) -> bool:
    """Wait until something is so; false, with a line on the screen, when it took too long."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            print(f"  not within {seconds:.0f} s: {what}", flush=True)
            return False
        await asyncio.sleep(0.05)
    return True
