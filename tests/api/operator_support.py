"""A real operator process with a real control plane; the tests act as the kubelet."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.pki import kubeconfig
from tests.api.chart_support import MINIMAL, ROOT, render
from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import TIMEOUT, Kubernetes, fetch, free_port, until
from tests.api.supervised import SupervisedProcess
from trainyard_crds.constants import JOB_NAME_LABEL, ROLE_LABEL, child_name
from trainyard_crds.printer_text import progress_summary
from trainyard_kube.errors import NotFoundError

Object = dict[str, Any]
NODE = "test-node"
IMAGE = "registry.local/trainyard-trainer:test"
SPEC: Object = {
    "task": "llm",
    "method": "qlora",
    "model": {"source": "pvc://models/tiny"},
    "dataset": {"source": "pvc://models/train.jsonl"},
    "resources": {"gpus": 0, "cpu": "1", "memory": "2Gi"},
}
USER = f"system:serviceaccount:{SYSTEM}:trainyard-operator"
"""User name of the operator."""


class Operator(SupervisedProcess):
    """An operator process with the permissions of the chart.

    Args:
        kubernetes: The control plane.
        folder: Folder of its kubeconfig and log.
        identity: Identity in the Lease.
        chart: Values of the chart as Helm arguments.
        through: Returns a kubeconfig that uses a proxy, from the real one.
        environment: More environment variables.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        folder: Path,
        identity: str = "one",
        *,
        chart: tuple[str, ...] = (),
        through: Callable[[Path], Path] = lambda direct: direct,
        **environment: str,
    ) -> None:
        super().__init__()
        self.kubernetes, self.folder, self.identity = kubernetes, folder, identity
        self._chart, self._through = chart, through
        self.health_port = free_port()
        self._environment = environment
        self._log = folder / f"operator-{identity}.log"
        self._log.touch()
        self.start()

    def start(self) -> None:
        self.process = self._start()
        self.supervise()

    def is_running(self) -> bool:
        return self.process.poll() is None

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'kube'}:{ROOT / 'operator'}",
            "KUBECONFIG": str(self._through(service_account(self.kubernetes, self.folder, *self._chart))),
            "TRAINYARD_NAMESPACE": SYSTEM,
            "TRAINYARD_IDENTITY": self.identity,
            "TRAINYARD_TRAINER_IMAGE": IMAGE,
            "TRAINYARD_OPERATOR_IMAGE": "registry.local/trainyard-operator:1",
            "TRAINYARD_SERVING_GPU_IMAGE": "registry.local/vllm:1",
            "TRAINYARD_SERVING_CPU_IMAGE": "registry.local/trainyard-server:1",
            "TRAINYARD_HEALTH_PORT": str(self.health_port),
            **self._environment,
        }
        command = [sys.executable, "-m", "trainyard_operator"]
        with self._log.open("a") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)

    def restart(self) -> None:
        """Start again after `kill` or `stop` and wait for leadership."""
        self.start()
        self.wait_for_leadership()

    def wait_for_leadership(self) -> None:
        until(lambda: self.has_failed() or "trainyard_leader 1.0" in self.get("/metrics")[1])
        assert not self.has_failed(), self.log()

    def kill(self) -> None:
        self.unsupervise()
        self.process.kill()
        self.process.wait(TIMEOUT)

    def stop(self) -> int:
        self.unsupervise()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)

    def get(self, path: str) -> tuple[int, str]:
        return fetch(self.health_port, path)

    def get_json(self, path: str) -> Object:
        """Return a JSON document of the health server."""
        found: Object = json.loads(until(lambda: (answer := self.get(path))[0] == 200 and answer[1]))
        return found

    def log(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def leading(operator: Operator) -> Iterator[Operator]:
    """Wait until an operator leads; kill it at the end."""
    try:
        operator.wait_for_leadership()
        yield operator
    finally:
        operator.kill()


def service_account(kubernetes: Kubernetes, folder: Path, *arguments: str) -> Path:
    """Create the operator's service account with the roles of the chart and return its kubeconfig."""
    kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    objects = [
        entry
        for entry in render(MINIMAL, *arguments)
        if entry["kind"] in kinds and entry["metadata"]["name"] in ("trainyard-operator", "trainyard-jobs")
    ]
    kubernetes.apply(*objects)
    token = kubernetes.kubectl("create", "token", "trainyard-operator", "-n", SYSTEM, "--duration", "8h")
    document = json.loads(kubeconfig(kubernetes.cluster.server, "operator", "", "", ""))
    server, ca = kubernetes.cluster.server, str(kubernetes.cluster.ca)
    document["clusters"][0]["cluster"] = {"server": server, "certificate-authority": ca}
    document["users"][0]["user"] = {"token": token}
    path = folder / "operator.kubeconfig"
    path.write_text(json.dumps(document))
    return path


class Team:
    """A namespace under Pod Security `restricted`; the test acts as the kubelet of its pods."""

    def __init__(self, kubernetes: Kubernetes, namespace: str) -> None:
        self.kubernetes, self.client, self.namespace = kubernetes, kubernetes.client, namespace

    def create(self, name: str, **spec: Any) -> TrainingJob:
        body = {
            "apiVersion": "trainyard.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {**SPEC, **spec},
        }
        created = self.client.apply(f"{self._path('trainyard.dev/v1alpha1')}/trainingjobs/{name}", body)
        return TrainingJob(self, name, created["metadata"]["uid"])

    def names(self, plural: str, group: str = "v1") -> list[str]:
        items = self.client.get(f"{self._path(group)}/{plural}")["items"]
        return sorted(item["metadata"]["name"] for item in items)

    def _path(self, group: str) -> str:
        root = f"/api/{group}" if group == "v1" else f"/apis/{group}"
        return f"{root}/namespaces/{self.namespace}"


@contextlib.contextmanager
def team_namespace(kubernetes: Kubernetes, prefix: str, labels: dict[str, str] | None = None) -> Iterator[Team]:
    """Create a namespace for a test and delete it at the end, without waiting."""
    namespace = f"{prefix}-{uuid.uuid4().hex[:8]}"
    kubernetes.namespace(namespace, labels)
    try:
        yield Team(kubernetes, namespace)
    finally:
        kubernetes.client.delete(f"/api/v1/namespaces/{namespace}")


class TrainingJob:
    """One TrainingJob of a team."""

    def __init__(self, team: Team, name: str, uid: str) -> None:
        self.team, self.client, self.name, self.uid = team, team.client, name, uid
        self.child_name = child_name(name, uid)
        self.path = f"/apis/trainyard.dev/v1alpha1/namespaces/{team.namespace}/trainingjobs/{name}"
        self.child_path = f"/apis/batch/v1/namespaces/{team.namespace}/jobs/{self.child_name}"

    def read(self) -> Object:
        return self.client.get(self.path)

    def status(self) -> Object:
        status: Object = self.read().get("status", {})
        return status

    def condition(self, kind: str) -> Object:
        found = [entry for entry in self.status().get("conditions", []) if entry["type"] == kind]
        return found[0] if found else {}

    def patch(self, **spec: Any) -> None:
        self.client.patch(self.path, {"spec": spec})

    def delete(self) -> None:
        self.client.delete(self.path)

    def wait(self, phase: str) -> Object:
        """Wait for a phase and return the status."""
        with contextlib.suppress(AssertionError):
            return until(lambda: status if (status := self.status()).get("phase") == phase else None)
        raise AssertionError(f"not {phase} within {TIMEOUT:.0f} s: {json.dumps(self.status(), indent=1)}")

    def child(self) -> Object:
        return self.client.get(self.child_path)

    def pods(self, role: str = "train") -> list[Object]:
        selector = f"{JOB_NAME_LABEL}%3D{self.name}%2C{ROLE_LABEL}%3D{role}"
        pods: list[Object] = self.client.get(f"/api/v1/namespaces/{self.team.namespace}/pods?labelSelector={selector}")[
            "items"
        ]
        return pods

    def pod(self, role: str = "train") -> Pod:
        """Wait for a pod that has not ended."""

        def unfinished() -> Object | None:
            live = [pod for pod in self.pods(role) if pod["status"].get("phase") not in ("Succeeded", "Failed")]
            return live[0] if live else None

        return Pod(self, until(unfinished)["metadata"]["name"])

    def events(self) -> list[Object]:
        path = f"/apis/events.k8s.io/v1/namespaces/{self.team.namespace}/events"
        own = [entry for entry in self.client.get(path)["items"] if entry["regarding"].get("uid") == self.uid]
        return sorted(own, key=lambda entry: str(entry["eventTime"]))

    def run(self) -> Pod:
        """Start the pod and wait until the job runs."""
        pod = self.pod()
        pod.start()
        self.wait("Running")
        return pod

    def run_and_wait_for_event(self) -> Pod:
        """Start the pod and wait for the Event of the running job, the last write of the transition."""
        pod = self.run()
        until(lambda: "Running" in {event["reason"] for event in self.events()})
        return pod

    def report(self, message: str) -> None:
        """Write the trainer's last report to the status, as the gateway does before the container ends."""
        last = json.loads(message)
        progress = {"stage": "Training", "step": last["step"], "totalSteps": last["totalSteps"]}
        progress |= {"percent": 100.0 * last["step"] / last["totalSteps"], "updatedAt": "2026-01-01T00:01:00Z"}
        status = {
            "progress": progress,
            "metrics": last["metrics"],
            "checkpoints": last["checkpoints"],
            "summary": progress_summary(progress, last["metrics"]),
        }
        self.client.patch(f"{self.path}/status", {"status": status})

    def finish(self, pod: Pod) -> None:
        """End the pod as a trainer that has finished."""
        pod.end(0, termination("Finished", step=100, message="Training finished after 100 steps."))


class Pod:
    """A pod for which the test acts as the kubelet."""

    def __init__(self, job: TrainingJob, name: str) -> None:
        self.kubernetes, self.client, self.name = job.team.kubernetes, job.client, name
        self.path = f"/api/v1/namespaces/{job.team.namespace}/pods/{name}"

    def read(self) -> Object | None:
        try:
            return self.client.get(self.path)
        except NotFoundError:
            return None

    def start(self) -> None:
        """Bind the pod and set its container to running."""
        self.bind()
        self._status("Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})

    def bind(self) -> None:
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name}, "target": {"name": NODE}}
        self.kubernetes.kubectl("create", "--raw", f"{self.path}/binding", "-f", "-", text=json.dumps(body))

    def wait_for_deletion(self) -> None:
        """Wait until the pod is being deleted."""
        until(lambda: (pod := self.read()) is None or "deletionTimestamp" in pod["metadata"])

    def waiting(self, reason: str, message: str) -> None:
        self._status("Pending", {"waiting": {"reason": reason, "message": message}})

    def end(self, exit_code: int, message: str = "", reason: str = "Error") -> None:
        """Set the container to terminated, and remove a pod that is being deleted."""
        terminated = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else reason,
            "message": message,
            "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:01:00Z",
        }
        self._status("Failed" if exit_code else "Succeeded", {"terminated": terminated})
        pod = self.read()
        if pod is not None and "deletionTimestamp" in pod["metadata"]:
            self.remove()

    def remove(self) -> None:
        self.client.delete(self.path, {"gracePeriodSeconds": 0})

    def _status(self, phase: str, state: Object) -> None:
        container = {
            "name": "trainer",
            "image": IMAGE,
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        self.client.patch(f"{self.path}/status", {"status": {"phase": phase, "containerStatuses": [container]}})


def termination(outcome: str, *, step: int, message: str, exit_code: int = 0, reason: str = "TrainingFinished") -> str:
    """Return a termination message as written by the trainer."""
    checkpoint = {
        "name": f"step-{step}-e1",
        "step": step,
        "metrics": {"evalLoss": 0.5},
        "bytes": 1000,
        "digest": f"sha256:{'0' * 64}",
        "best": True,
        "createdAt": "2026-01-01T00:00:59Z",
    }
    document = {
        "outcome": outcome,
        "exitCode": exit_code,
        "reason": reason,
        "message": message,
        "step": step,
        "totalSteps": 100,
        "metrics": {"loss": 0.25},
        "checkpoints": [checkpoint],
    }
    return json.dumps(document)


def offer_gpus(kubernetes: Kubernetes, node: str, resource: str, count: int) -> None:
    """Make a node ready with GPUs for the queue, and without CPU, so that the scheduler ignores it."""
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": datetime.now(UTC).isoformat()}
    status = {"allocatable": {resource: str(count)}, "capacity": {resource: str(count)}, "conditions": [ready]}
    kubernetes.kubectl(
        "patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )


def requests_by(kubernetes: Kubernetes, user: str, after: int = 0) -> list[Object]:
    """Return the finished requests of a user in the audit log, from event number `after` on."""
    made = [entry for entry in kubernetes.audit(after) if entry["stage"] == "ResponseComplete"]
    return [entry for entry in made if entry["user"]["username"] == user]
