"""A gateway process with a real control plane, and pods with real tokens."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from cluster import api
from cluster.api import Cluster
from cluster.pki import kubeconfig
from cluster.ports import is_free
from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.chart_support import ROOT, render
from tests.api.supervised import SupervisedProcess
from trainyard_crds.constants import child_name, progress_audience, progress_path
from trainyard_crds.schema import KINDS
from trainyard_kube.errors import ApiError

NAMESPACE, FOREIGN = "team", "foreign"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
SPEC = {
    "task": "llm",
    "model": {"source": "pvc://models/tiny"},
    "dataset": {"source": "pvc://data/train.jsonl"},
    "resources": {"gpus": 0},
}
T = TypeVar("T")
TIMEOUT = 300.0
"""Seconds until a wait fails; only a failing test waits this long."""
_NO_NODE_MONITORING = ("--node-monitor-grace-period=2h", "--node-startup-grace-period=2h")
"""Nodes of the tests have no kubelet: without heartbeats the controller would mark them unreachable and evict pods."""


def until(condition: Callable[[], T | Literal[False] | None], seconds: float = TIMEOUT) -> T:
    """Poll `condition` and return its first true result.

    Raises:
        AssertionError: the time is over.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        SupervisedProcess.restart_all_lost()
        time.sleep(0.05)
    raise AssertionError(f"the condition was not met within {seconds} s")


@dataclass(frozen=True)
class Response:
    code: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))


class Kubernetes:
    """Requests to the cluster with cluster-admin permissions."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.client = cluster, cluster.client()

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        command = [str(self.cluster.kubectl), "--kubeconfig", str(self.cluster.kubeconfig), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def apply(self, *documents: dict[str, Any]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.kubectl("apply", "--server-side", "-f", "-", text=text)

    def namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        metadata = {"name": name, "labels": labels or {}}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        self.client.apply(f"/api/v1/namespaces/{name}", body)
        until(lambda: self.client.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"))

    def serves(self, plural: str, version: str = "trainyard.dev/v1alpha1") -> bool:
        """Return whether a kind is served; `kubectl wait` fails while the status of its CRD is empty."""
        try:
            return self.client.exists(f"/apis/{version}/{plural}")
        except ApiError:  # 429 while the storage of the new kind is initialised
            return False

    def job(self, name: str, namespace: str = NAMESPACE) -> Job:
        body = {
            "apiVersion": "trainyard.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": namespace},
            "spec": SPEC,
        }
        created = self.client.apply(_job_path(namespace, name), body)
        return Job(self, namespace, name, created["metadata"]["uid"])

    def audit(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the API server's complete audit events in order, from number `after` on."""
        return read_audit(self.cluster.audit_log.read_text())[after:]

    def token(self, namespace: str, audience: str, pod: tuple[str, str] | None = None) -> str:
        """Return a token of the default account for an audience, bound to a pod (name, UID) as by a kubelet."""
        spec: dict[str, Any] = {"audiences": [audience]}
        if pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod[0], "uid": pod[1]}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
        request = json.loads(self.client._request("POST", path, {"spec": spec}))
        return str(request["status"]["token"])


@dataclass(frozen=True)
class Pod:
    name: str
    uid: str
    token: str


@dataclass(frozen=True)
class Job:
    """A TrainingJob whose operator the test simulates."""

    kubernetes: Kubernetes
    namespace: str
    name: str
    uid: str

    def pod(self, suffix: str = "x2k4p", *, namespace: str = "", audience: str = "") -> Pod:
        """Create a pod of this job, which never runs, and a token bound to it."""
        namespace = namespace or self.namespace
        name = f"{child_name(self.name, self.uid)}-{suffix}"
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "trainer", "image": "none"}]},
        }
        made = self.kubernetes.client.apply(f"/api/v1/namespaces/{namespace}/pods/{name}", body)
        uid = made["metadata"]["uid"]
        token = self.kubernetes.token(namespace, audience or progress_audience(self.uid), (name, uid))
        return Pod(name, uid, token)

    def record(self, *pods: Pod, ended: int = 0, **status: Any) -> None:
        """Write the attempts to the status as the operator does; the first `ended` have finished."""
        attempts = [
            {"number": number, "pod": pod.name, "podUID": pod.uid}
            | ({"finishedAt": "2026-01-01T00:00:00Z"} if number <= ended else {})
            for number, pod in enumerate(pods, 1)
        ]
        self.patch_status(attempts=attempts, **status)

    def patch_status(self, **status: Any) -> None:
        self.kubernetes.client.patch(f"{_job_path(self.namespace, self.name)}/status", {"status": status})

    def read(self) -> dict[str, Any]:
        return self.kubernetes.client.get(_job_path(self.namespace, self.name))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.read().get("status", {})
        return status


class Gateway:
    """A gateway process with the permissions of the chart and a certificate of the cluster's CA.

    Args:
        kubernetes: The control plane.
        folder: Directory of its certificate, kubeconfig and log.
        through: Converts the kubeconfig, for example to one of a proxy.
    """

    def __init__(
        self, kubernetes: Kubernetes, folder: Path, *, through: Callable[[Path], Path] = lambda direct: direct
    ) -> None:
        self.port, self.api_port, self.health_port = free_port(), free_port(), free_port()
        self.activator_port = free_port()
        self.ca = kubernetes.cluster.ca
        self.folder, self.kubernetes = folder, kubernetes
        self.context = ssl.create_default_context(cafile=str(self.ca))
        self._serving_pair()
        self._kubeconfig = through(self._service_account())
        self.log = (folder / "gateway.log").open("w")
        self.process = self._start()
        until(lambda: self.process.poll() is not None or self.plain("/healthz")[0])
        assert self.process.poll() is None, self.log_text()

    def wait_until_ready(self) -> Gateway:
        """Wait until the TrainingJobs were listed."""
        until(lambda: self.plain("/readyz")[0] == 200)
        return self

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def post(self, path: str, body: Any, token: str | None) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        return self._send(urllib.request.Request(self.url(path), data, headers, method="POST"))

    def get(self, path: str, token: str | None) -> Response:
        """Send a request to the REST API."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self._send(urllib.request.Request(f"https://127.0.0.1:{self.api_port}{path}", headers=headers))

    def _send(self, request: urllib.request.Request) -> Response:
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.context) as response:
                return Response(response.status, json.loads(response.read()), _lower(response.headers))
        except urllib.error.HTTPError as refused:
            with refused:
                return Response(refused.code, json.loads(refused.read()), _lower(refused.headers))

    def report(self, job: Job, pod: Pod, sequence: int, step: int, **progress: Any) -> Response:
        return self.post(progress_path(job.namespace, job.name), report(sequence, step, **progress), pod.token)

    def plain(self, path: str) -> tuple[int, str]:
        return fetch(self.health_port, path)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(TIMEOUT)
        self.log.close()
        return code

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric; 0 if it has no such sample."""
        return sample(self.plain("/metrics")[1], name, **labels)

    def log_text(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'kube'}:{ROOT / 'gateway'}",
            "KUBECONFIG": str(self._kubeconfig),
            "TRAINYARD_HOST": "127.0.0.1",
            "TRAINYARD_PORT": str(self.port),
            "TRAINYARD_API_PORT": str(self.api_port),
            "TRAINYARD_ACTIVATOR_PORT": str(self.activator_port),
            "TRAINYARD_HEALTH_PORT": str(self.health_port),
            "TRAINYARD_TLS_DIRECTORY": str(self.folder),
        }
        command = [sys.executable, "-m", "trainyard_gateway"]
        return subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log, text=True)

    def _serving_pair(self) -> None:
        authority = self.kubernetes.cluster.plane.authority
        pair = authority.issue("gateway-serving", "/CN=trainyard-gateway", ["IP:127.0.0.1"])
        for path, name in zip(pair, ("tls.crt", "tls.key"), strict=True):
            (self.folder / name).write_bytes(path.read_bytes())

    def _service_account(self) -> Path:
        """Write a kubeconfig for the service account of the chart, bound to the roles of the chart."""
        kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
        objects = [
            entry for entry in render() if entry["kind"] in kinds and entry["metadata"]["name"] == "trainyard-gateway"
        ]
        self.kubernetes.apply(*objects)
        token = self.kubernetes.kubectl("create", "token", "trainyard-gateway", "-n", SYSTEM)
        document = json.loads(kubeconfig(self.kubernetes.cluster.server, "gateway", "", "", ""))
        document["clusters"][0]["cluster"] = {
            "server": self.kubernetes.cluster.server,
            "certificate-authority": str(self.ca),
        }
        document["users"][0]["user"] = {"token": token}
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(document))
        return path


def install_crd(cluster: Cluster) -> None:
    """Install the CRDs and wait until they are served: before the controllers start, so that they discover them."""
    kubernetes = Kubernetes(cluster)
    for kind in KINDS:
        plural = kind.kind_info.plural
        kubernetes.kubectl("apply", "--server-side", "-f", str(ROOT / f"crds/manifests/{plural}.yaml"))
        until(partial(kubernetes.serves, plural))


@contextmanager
def plane(
    name: str, *, first: Callable[[Cluster], None] = install_crd, extra_flags: Sequence[str] = ()
) -> Iterator[Kubernetes]:
    """Run a control plane with the operator's namespace; remove it at the end.

    Args:
        name: Name of the cluster.
        first: Called before the controllers start.
        extra_flags: Further flags of controller manager and scheduler.
    """
    more = {"controller-manager": (*_NO_NODE_MONITORING, *extra_flags), "scheduler": extra_flags}
    try:
        kubernetes = Kubernetes(api.start(name, more=more, first=first))
        kubernetes.namespace(SYSTEM)
        yield kubernetes
    finally:
        api.stop(name, purge=True)


@contextmanager
def control_plane(name: str) -> Iterator[Kubernetes]:
    """Run a control plane with the namespaces of the gateway's tests."""
    with plane(name) as kubernetes:
        for namespace in (NAMESPACE, FOREIGN):
            kubernetes.namespace(namespace)
        yield kubernetes


def sample(text: str, name: str, **labels: str) -> float:
    """Return a value of a Prometheus exposition; 0 if it has no such sample."""
    families = text_string_to_metric_families(text)
    samples = [one for family in families for one in family.samples if (one.name, one.labels) == (name, labels)]
    return samples[0].value if samples else 0.0


def fetch(port: int, path: str) -> tuple[int, str]:
    """Return status and text of a plain HTTP response; status 0 without a response."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
    except OSError:
        return 0, ""


def read_audit(text: str) -> list[dict[str, Any]]:
    """Parse the complete lines of an audit log."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.cycle(random.sample(range(10000 + 500 * _WORKER, 10500 + 500 * _WORKER), 500))
"""Ports of this test process, apart from those of control planes (from 20000) and outgoing connections (from 32768)."""


def free_port() -> int:
    return next(port for port in _PORTS if is_free(port))


def report(sequence: int, step: int, **progress: Any) -> dict[str, Any]:
    fields = {"stage": "Training", "step": step, "totalSteps": 320, "percent": step / 3.2, "remainingSeconds": 4320}
    return {"sequence": sequence, "ownerEpoch": 1, "progress": fields | progress, "metrics": {"loss": 0.0123}}


def _job_path(namespace: str, name: str) -> str:
    return f"/apis/trainyard.dev/v1alpha1/namespaces/{namespace}/trainingjobs/{name}"


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
