"""Builders and questions for the end-to-end tests; everything goes through kubectl, as a user would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.client import ApiError, Client
from demo import install
from demo.kubectl import Kubectl, KubectlError, Object

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/python-docs-qlora.yaml"
SHARE = "400m"
"""Cores of a job beside others: two of them fit on two cores beside the example, which takes a whole one; else four."""
VALUES = ("training.env.TRAINYARD_DEVICE=cpu", "training.env.HF_ENDPOINT=http://127.0.0.1:9", "queue.startSeconds=3600")
"""Of the chart: the node only pretends to have GPUs, has no hub wherever it is, and the pods of other tests may hold
its cores for long."""
STEPS, INTERVAL = 240, 40
"""Of the undisturbed run: there is time to disturb one that has just begun."""
TIMEOUT = 1800
"""Seconds until something is given up that may have to wait for its turn; a job that has ended ends a wait at once."""
PROCESSES = """
import os, pathlib
found = {}
for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    variables = dict(one.split("=", 1) for one in path.read_text().split("\\0") if "=" in one)
    if "RANK" in variables:
        found[variables["RANK"]] = int(path.parent.name)
print(*(found[rank] for rank in sorted(found)))
"""
"""Python program for `kubectl exec`: prints the process ids of a group in the order of their ranks."""
FINAL = ("Failed", "Succeeded", "Stopped")
"""Phases that a job stays in."""
GRACE = 600
"""Seconds that a pod has to save in; one that has saved does not wait for them."""


@dataclass(frozen=True)
class Site:
    """An installed Trainyard on a real node: a namespace of its own, the demo's inputs in the claim `inputs`."""

    kubectl: Kubectl
    client: Client
    """For what is looked at again and again: a kubectl costs a fifth of a second of a core."""
    images: dict[str, str]
    inputs: Path
    began: str = ""
    """When the tier began, as the API server's audit log writes times."""

    def upgrade(self, **images: str) -> None:
        """Install the chart again with other images."""
        install.install(self.kubectl, self.kubectl.program.parent / "helm", self.images | images, *VALUES)

    def look(self, path: str) -> Object | None:
        """An object or a list, or None when there is none.

        Raises:
            KubectlError: the API server refused, or does not answer.
        """
        try:
            return self.client.get(path)
        except ApiError as refused:
            if refused.status == 404:
                return None
            raise KubectlError(str(refused)) from refused

    def job(self, name: str) -> Object:
        found = self.look(f"/apis/trainyard.dev/v1alpha1/namespaces/{self.kubectl.namespace}/trainingjobs/{name}")
        assert found is not None, f"TrainingJob {name} is gone"
        return found

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.job(name).get("status", {}))

    def pods(self, name: str) -> list[Object]:
        selector = f"labelSelector=trainyard.dev/trainingjob%3D{name}"
        found = self.look(f"/api/v1/namespaces/{self.kubectl.namespace}/pods?{selector}")
        return list(found["items"]) if found else []

    def evict(self, pod: str) -> None:
        """Ask for the pod's eviction, as a drained node does."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        url = f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{pod}/eviction"
        self.kubectl.run("create", "--raw", url, "-f", "-", text=json.dumps(eviction))

    def scale(self, component: str, replicas: int) -> None:
        """Let that many pods of the operator or the gateway run, and wait until they do."""
        name = f"trainyard-{component}"
        self.kubectl.run("scale", f"deploy/{name}", "-n", install.NAMESPACE, f"--replicas={replicas}")
        pods = ("pods", "-n", install.NAMESPACE, "-l", f"app.kubernetes.io/name={name}")
        self.kubectl.wait(
            f"{replicas} pods of {name} are ready",
            lambda: [condition(pod["status"], "Ready").get("status") for pod in self.kubectl.items(*pods)],
            lambda ready: ready == ["True"] * replicas,
            TIMEOUT,
        )

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        self.kubectl.run("patch", "trainingjob", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def wait_status(
        self, name: str, what: str, done: Callable[[dict[str, Any]], bool], seconds: float = TIMEOUT
    ) -> dict[str, Any]:
        """Wait until `done` holds of the job's status; a job that has ended otherwise ends the wait at once."""
        seen = self.kubectl.wait(
            f"TrainingJob {name} {what}",
            lambda: self.status(name),
            lambda status: done(status) or status.get("phase") in FINAL,
            seconds,
        )
        assert done(seen), f"{name} never {what}: {seen['phase']}: {seen.get('message')}\n{seen.get('logTail')}"
        return dict(seen)

    def wait_phase(self, name: str, *phases: str, seconds: float = TIMEOUT) -> dict[str, Any]:
        """Wait until the job is in one of the phases."""
        return self.wait_status(
            name, f"in phase {' or '.join(phases)}", lambda status: status.get("phase") in phases, seconds
        )

    def wait_step(self, name: str, step: int, seconds: float = TIMEOUT) -> dict[str, Any]:
        """Wait until the status shows at least that step."""
        return self.wait_status(
            name, f"at step {step}", lambda status: status.get("progress", {}).get("step", 0) >= step, seconds
        )

    def wait_attempt(self, name: str, number: int) -> dict[str, Any]:
        """Wait until the job has begun that many attempts; the newest of them."""
        status = self.wait_status(name, f"in attempt {number}", lambda status: len(status["attempts"]) == number)
        return dict(status["attempts"][-1])

    def wait_trained(self, name: str, step: int = 3, seconds: float = TIMEOUT) -> dict[str, Any]:
        """Wait until the newest pod's log tells of that step: sooner than the status, which is written every 10 s."""
        status = self.wait_phase(name, "Running", seconds=seconds)
        pod = status["attempts"][-1]["pod"]
        self.kubectl.wait(
            f"pod {pod} at step {step}", lambda: logged_step(self.log(pod)), lambda seen: seen >= step, seconds, every=1
        )
        return status

    def wait_resumed(self, pod: str) -> int:
        """Wait until a pod says that it resumed; the step of the checkpoint."""
        return resumed_step(
            self.kubectl.wait(f"pod {pod} resumed", lambda: self.log(pod), lambda text: "Resumed" in text, TIMEOUT)
        )

    def wait_told(self, name: str, reason: str) -> list[str]:
        """Wait for an Event about a job, which is written after its status; the reasons of all, oldest first."""

        def reasons() -> list[str]:
            events = self.kubectl.items("events.events.k8s.io", "--field-selector", f"regarding.name={name}")
            own = [event for event in events if event["regarding"]["kind"] == "TrainingJob"]
            return [event["reason"] for event in sorted(own, key=lambda event: str(event["eventTime"]))]

        return list(self.kubectl.wait(f"{name}: {reason}", reasons, lambda found: reason in found, TIMEOUT))

    def wait_logged(self, pod: str, words: str) -> None:
        """Wait until a pod's log has those words: the node writes it a moment later."""
        self.kubectl.wait(f"pod {pod} says: {words}", lambda: self.log(pod), lambda text: words in text, TIMEOUT)

    def log(self, pod: str) -> str:
        """What a pod has written."""
        try:
            return self.client.text(f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{pod}/log")
        except ApiError as refused:
            raise KubectlError(str(refused)) from refused

    def begin(self, job: Object) -> None:
        """Apply a reference job, and the undisturbed one beside it, so that nobody waits for that in the end."""
        self.kubectl.apply(job, reference_job("undisturbed"))

    def undisturbed(self) -> dict[str, Any]:
        """The status of a finished run of `reference_job` that nothing interrupted; all tests share it."""
        self.kubectl.apply(reference_job("undisturbed"))
        return self.wait_phase("undisturbed", "Succeeded")


def clear(kubectl: Kubectl, name: str) -> None:
    """Remove a namespace with what an interrupted run may have left in it, whatever still runs there."""
    there = replace(kubectl, namespace=name)
    if kubectl.get("namespace", name) is None:
        return
    kubectl.run("delete", "namespace", name, "--wait=false")
    there.run("delete", "trainingjobs", "--all", "--wait=false")
    there.run("delete", "pods", "--all", "--grace-period=1", "--wait=false")
    kubectl.wait(f"namespace {name} is gone", lambda: kubectl.get("namespace", name), lambda it: it is None, TIMEOUT)


def reference_job(name: str, *, cpu: str = SHARE) -> Object:
    """A job whose outcome is compared with that of the undisturbed one."""
    # Few rows are held out: an evaluation takes no longer than some steps.
    dataset = {"source": "pvc://inputs/train.jsonl", "validation": {"fraction": 0.02}}
    job = training_job(name, steps=STEPS, cpu=cpu, dataset=dataset, retry={"limit": 1})
    job["spec"]["checkpoints"]["everySteps"] = INTERVAL
    return job


def outcome(status: dict[str, Any]) -> dict[str, Any]:
    """What a run gave, without names and times."""
    exports = [(export["format"], export["digest"]) for export in status["exports"]]
    return {"exports": exports, "metrics": {key: status["metrics"][key] for key in ("loss", "evalLoss")}}


def logged_step(log: str) -> int:
    """The last step that a pod's log tells of."""
    return max(map(int, re.findall(r'"step": (\d+)', log)), default=0)


def resumed_step(log: str) -> int:
    """The step of the checkpoint that a pod resumed from."""
    found = re.search(r"Resumed from step-(\d+)-e1", log)
    assert found, f"it did not resume:\n{log[:3000]}"
    return int(found[1])


def training_job(name: str, *, method: str = "lora", steps: int = 60, cpu: str = SHARE, **spec: Any) -> Object:
    """A small CPU TrainingJob on the demo's inputs; keyword arguments replace whole blocks of the spec."""
    blocks: dict[str, Any] = {
        "task": "llm",
        "method": method,
        "model": {"source": "pvc://inputs/model"},
        "dataset": {"source": "pvc://inputs/train.jsonl"},
        "optimization": {
            "maxSteps": steps,
            "gradientAccumulation": 1,
            "precision": "fp32",
            "loggingSteps": 1,
            "learningRate": 1e-3,
        },
        "llm": {"maxLength": 256},
        "checkpoints": {"everySteps": 50, "gracePeriodSeconds": GRACE},
        "resources": {"gpus": 0, "cpu": cpu, "memory": "3Gi"},
        "storage": {"size": "1Gi", "retain": False},
    }
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": blocks | spec,
    }


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """The condition of that type, or an empty one."""
    return next((dict(c) for c in status.get("conditions", []) if c["type"] == kind), {})


def unfinished(pods: list[Object]) -> list[str]:
    return [p["metadata"]["name"] for p in pods if p.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
