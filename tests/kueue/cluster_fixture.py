"""Namespaces whose TrainingJobs run on fake nodes under Kueue."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes, until
from tests.api.kueue_support import GROUP
from tests.api.operator_support import SPEC, Team, TrainingJob, termination

Object = dict[str, Any]
CLAIM, FLAVOR, QUEUE = "models", "gpu-nodes", "gpus"
_FINISHED = termination("Finished", step=100, message="Training finished after 100 steps.")
_ENDED = ("Succeeded", "Failed")


class Job(TrainingJob):
    """A TrainingJob whose pods kwok runs."""

    def runs(self, attempts: int = 1, seconds: float = 90) -> Object:
        """Wait until it runs for the `attempts`-th time, and return the status."""
        return self.reaches(lambda status: status.get("phase") == "Running" and _attempts(status) == attempts, seconds)

    def waits(self, reason: str, seconds: float = 90) -> Object:
        """Wait until it is Queued for a reason, and return the status."""
        return self.reaches(
            lambda status: status.get("phase") == "Queued" and reason_in(status, "Admitted") == reason, seconds
        )

    def reaches(self, wanted: Any, seconds: float = 90) -> Object:
        """Wait for a status and return it."""
        with suppress(AssertionError):
            return until(lambda: status if wanted(status := self.status()) else None, seconds)
        workload = self.workload() or {"spec": {}, "status": {}}
        seen = [self.status(), workload["spec"].get("active"), workload.get("status", {})]
        raise AssertionError(f"not within {seconds} s: {json.dumps(seen, indent=1)}")

    def live(self) -> list[Object]:
        """Its pods that have not ended."""
        return [pod for pod in self.pods() if pod["status"].get("phase") not in _ENDED]

    def succeed(self) -> Object:
        """End its pods with success and wait for the phase."""
        self.end()
        return self.wait("Succeeded")

    def end(self, after: str = "") -> None:
        """End its pods with success, at once or after a time such as 3s."""
        ended = {"trainyard.test/exit-code": "0"}
        late = {f"pod-complete.stage.kwok.x-k8s.io/{name}": after for name in ("delay", "jitter-delay")}
        for pod in self.live():
            notes = {"trainyard.test/termination-message": _FINISHED, **(late if after else ended)}
            path = f"/api/v1/namespaces/{self.team.namespace}/pods/{pod['metadata']['name']}"
            self.client.patch(path, {"metadata": {"annotations": notes}})

    def position(self) -> int | None:
        """Its published queue position."""
        position: int | None = self.status().get("queue", {}).get("position")
        return position

    def workload(self) -> Object | None:
        """Kueue's Workload of its Job, if there is one."""
        items = self.client.get(f"{GROUP}/namespaces/{self.team.namespace}/workloads")["items"]
        own = [one for one in items if one["metadata"]["ownerReferences"][0]["name"] == self.child_name]
        return own[0] if own else None

    def check(self, name: str, state: str, message: str, **more: Any) -> None:
        """Write the state of an AdmissionCheck of its Workload, as the check's controller does."""
        found = until(lambda: self._reserved(name))
        entry = {"name": name, "state": state, "message": message, "lastTransitionTime": _now(), **more}
        path = f"{GROUP}/namespaces/{self.team.namespace}/workloads/{found['metadata']['name']}/status"
        self.client.patch(path, {"status": {"admissionChecks": [entry]}})

    def _reserved(self, check: str) -> Object | None:
        """Its Workload once it lists a check."""
        found = self.workload() or {}
        listed = [one["name"] for one in found.get("status", {}).get("admissionChecks", [])]
        return found if check in listed else None

    def workload_spec(self) -> Object:
        """The spec of its Workload."""
        spec: Object = (self.workload() or {"spec": {}})["spec"]
        return spec


class KueueTeam(Team):
    """A namespace with a bound claim and a LocalQueue."""

    def submit(self, name: str, *, gpus: int = 1, nodes: int = 1, priority: int = 5, **spec: Any) -> Job:
        resources = {"gpus": gpus, "cpu": "100m", "memory": "64Mi", "nodes": nodes}
        queue = {"name": QUEUE, "priority": priority}
        made = self.create(
            name, **{**SPEC, "resources": resources, "storage": {"claimName": CLAIM}, "queue": queue, **spec}
        )
        return Job(self, name, made.uid)

    def workloads(self) -> list[Object]:
        found: list[Object] = self.client.get(f"{GROUP}/namespaces/{self.namespace}/workloads")["items"]
        return found


@contextmanager
def kueue_team(kubernetes: Kubernetes, prefix: str) -> Iterator[KueueTeam]:
    """Create a namespace for a test; its jobs are deleted in the end."""
    namespace = f"{prefix}-{uuid.uuid4().hex[:6]}"
    kwok_support.prepare_namespace(kubernetes, namespace, CLAIM)
    local_queue(kubernetes, namespace)
    made = KueueTeam(kubernetes, namespace)
    try:
        yield made
    finally:
        kubernetes.kubectl("delete", "trainingjobs", "--all", "-n", namespace, "--wait=true", "--timeout=90s")
        until(lambda: not made.workloads())
        kubernetes.client.delete(f"/api/v1/namespaces/{namespace}")
        kubernetes.client.delete(f"/api/v1/persistentvolumes/{CLAIM}-{namespace}")


def cluster_queue(kubernetes: Kubernetes, gpus: int, *, name: str = QUEUE, **spec: Any) -> None:
    """Make a ClusterQueue with as many GPUs, and its ResourceFlavor, or change them."""
    flavor(kubernetes, FLAVOR, {"type": "kwok"})
    queue_of_flavors(kubernetes, name, {FLAVOR: gpus}, **spec)


def flavor(kubernetes: Kubernetes, name: str, labels: dict[str, str], **spec: Any) -> None:
    """Make a ResourceFlavor of fake nodes with some labels."""
    toleration = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
    kubernetes.apply(_object("ResourceFlavor", name, {"nodeLabels": labels, "tolerations": [toleration], **spec}))


def queue_of_flavors(kubernetes: Kubernetes, name: str, gpus: Mapping[str, int], **spec: Any) -> None:
    """Make a ClusterQueue with as many GPUs of each flavor, in the order in which they are tried, or change it."""
    flavors = []
    for its, count in gpus.items():
        limits = {"nvidia.com/gpu": count, "cpu": "64", "memory": "512Gi"}
        resources = [{"name": resource, "nominalQuota": limit} for resource, limit in limits.items()]
        flavors.append({"name": its, "resources": resources})
    body = {
        "namespaceSelector": {},
        "queueingStrategy": "BestEffortFIFO",
        "preemption": {"withinClusterQueue": "Never"},
        "stopPolicy": "None",
        "resourceGroups": [{"coveredResources": ["nvidia.com/gpu", "cpu", "memory"], "flavors": flavors}],
        **spec,
    }
    kubernetes.apply(_object("ClusterQueue", name, body))


def local_queue(kubernetes: Kubernetes, namespace: str, name: str = QUEUE, cluster_queue: str = QUEUE) -> None:
    """Make a LocalQueue."""
    body = _object("LocalQueue", name, {"clusterQueue": cluster_queue})
    kubernetes.client.apply(f"{GROUP}/namespaces/{namespace}/localqueues/{name}", body)


def admission_check(kubernetes: Kubernetes, name: str, *, active: bool) -> None:
    """Create an AdmissionCheck; the test acts as the controller of an active one."""
    kubernetes.apply(_object("AdmissionCheck", name, {"controllerName": f"trainyard.test/{name}"}))
    condition = {"type": "Active", "status": "True", "reason": "Played", "message": "", "lastTransitionTime": _now()}
    if active:
        kubernetes.client.patch(f"{GROUP}/admissionchecks/{name}/status", {"status": {"conditions": [condition]}})


def _object(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reason_in(status: Object, kind: str) -> str:
    """The reason of a condition."""
    found = [entry["reason"] for entry in status.get("conditions", []) if entry["type"] == kind]
    return str(found[0]) if found else ""


def _attempts(status: Object) -> int:
    return len(status.get("attempts", []))
