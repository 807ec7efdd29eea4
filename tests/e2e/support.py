"""Builders and queries of the end-to-end tests; everything goes through kubectl, as for a user."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.client import Client
from demo import install
from demo.kubectl import Kubectl, KubectlError, Object
from trainyard_kube.errors import ApiError, NotFoundError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/python-docs-qlora.yaml"
SHARE = "400m"
"""CPU of a job: two fit on two cores beside the example, which takes one core; four without it."""
VALUES = ("training.env.TRAINYARD_DEVICE=cpu", "training.env.HF_ENDPOINT=http://127.0.0.1:9", "queue.startSeconds=3600")
"""Chart values: the node has fake GPUs and no hub, and the pods of other tests may hold its cores for long."""
STEPS, INTERVAL = 240, 40
"""Steps and checkpoint interval of the reference job: long enough to disturb it after its start."""
TIMEOUT = 900
"""Seconds, three times the longest wait seen: a job may wait for other tests. A finished job ends a wait at once."""
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
"""Final phases."""
GRACE = 600
"""Grace period for saving in seconds; a pod that has saved exits sooner."""


@dataclass(frozen=True)
class Site:
    """An installed Trainyard on a real node, with a namespace and the demo's inputs in the claim `inputs`."""

    kubectl: Kubectl
    client: Client
    """For polling: a kubectl process takes 0.2 s of CPU."""
    images: dict[str, str]
    inputs: Path
    began: str = ""
    """Start of the tier, in the time format of the audit log."""

    def upgrade(self, **images: str) -> None:
        """Install the chart again with other images."""
        install.install(self.kubectl, self.kubectl.program.parent / "helm", self.images | images, *VALUES)

    def read(self, path: str) -> Object | None:
        """Return an object or a list; None if it does not exist.

        Raises:
            KubectlError: the API server refused the request or did not respond.
        """
        try:
            return self.client.get(path)
        except NotFoundError:
            return None
        except ApiError as error:
            raise KubectlError(str(error)) from error

    def job(self, name: str) -> Object:
        found = self.read(f"/apis/trainyard.dev/v1alpha1/namespaces/{self.kubectl.namespace}/trainingjobs/{name}")
        assert found is not None, f"TrainingJob {name} is gone"
        return found

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.job(name).get("status", {}))

    def pods(self, name: str) -> list[Object]:
        selector = f"labelSelector=trainyard.dev/trainingjob%3D{name}"
        found = self.read(f"/api/v1/namespaces/{self.kubectl.namespace}/pods?{selector}")
        return list(found["items"]) if found else []

    def evict(self, pod: str) -> None:
        """Evict a pod through the Eviction API, as a drain does."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        url = f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{pod}/eviction"
        self.kubectl.run("create", "--raw", url, "-f", "-", text=json.dumps(eviction))

    def scale(self, component: str, replicas: int) -> None:
        """Scale the operator or the gateway and wait until its pods are ready."""
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
        """Wait until the status meets a condition; fail at once when the job has ended without meeting it."""
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
        """Wait until the status has at least this step."""
        return self.wait_status(
            name, f"at step {step}", lambda status: status.get("progress", {}).get("step", 0) >= step, seconds
        )

    def wait_attempt(self, name: str, number: int) -> dict[str, Any]:
        """Wait until the job has this number of attempts, and return the newest."""
        status = self.wait_status(name, f"in attempt {number}", lambda status: len(status["attempts"]) == number)
        return dict(status["attempts"][-1])

    def wait_trained(self, name: str, step: int = 3, seconds: float = TIMEOUT) -> dict[str, Any]:
        """Wait until the newest pod has logged a step; the status, written every 10 s, has it later."""
        status = self.wait_phase(name, "Running", seconds=seconds)
        pod = status["attempts"][-1]["pod"]
        self.kubectl.wait(
            f"pod {pod} at step {step}", lambda: logged_step(self.log(pod)), lambda seen: seen >= step, seconds, every=1
        )
        return status

    def wait_resumed(self, pod: str) -> int:
        """Wait until a pod has logged that it resumed, and return the step of the checkpoint."""
        return resumed_step(
            self.kubectl.wait(f"pod {pod} resumed", lambda: self.log(pod), lambda text: "Resumed" in text, TIMEOUT)
        )

    def wait_event(self, name: str, reason: str) -> list[str]:
        """Wait for an Event, which is written after the status, and return the reasons of all, oldest first."""

        def reasons() -> list[str]:
            events = self.kubectl.items("events.events.k8s.io", "--field-selector", f"regarding.name={name}")
            own = [event for event in events if event["regarding"]["kind"] == "TrainingJob"]
            return [event["reason"] for event in sorted(own, key=lambda event: str(event["eventTime"]))]

        return list(self.kubectl.wait(f"{name}: {reason}", reasons, lambda found: reason in found, TIMEOUT))

    def wait_logged(self, pod: str, text: str) -> None:
        """Wait until a pod's log contains a text; the node writes the log with a delay."""
        self.kubectl.wait(f"pod {pod} has logged: {text}", lambda: self.log(pod), lambda log: text in log, TIMEOUT)

    def log(self, pod: str) -> str:
        """Return the log of a pod."""
        try:
            return self.client.text(f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{pod}/log")
        except ApiError as error:
            raise KubectlError(str(error)) from error

    def begin(self, job: Object) -> None:
        """Apply a reference job together with the undisturbed one, so that no test waits for the latter at the end."""
        self.kubectl.apply(job, reference_job("undisturbed"))

    def undisturbed(self) -> dict[str, Any]:
        """Return the final status of an uninterrupted `reference_job`, which all tests share."""
        self.kubectl.apply(reference_job("undisturbed"))
        return self.wait_phase("undisturbed", "Succeeded")


def clear(kubectl: Kubectl, name: str) -> None:
    """Delete a namespace with everything that an interrupted test run left in it."""
    inside = replace(kubectl, namespace=name)
    if kubectl.get("namespace", name) is None:
        return
    kubectl.run("delete", "namespace", name, "--wait=false")
    inside.run("delete", "trainingjobs", "--all", "--wait=false")
    inside.run("delete", "pods", "--all", "--grace-period=1", "--wait=false")
    kubectl.wait(f"namespace {name} is gone", lambda: kubectl.get("namespace", name), lambda it: it is None, TIMEOUT)


def reference_job(name: str, *, cpu: str = SHARE) -> Object:
    """Return a job whose outcome is compared with that of the undisturbed one."""
    # Few held-out rows, so that an evaluation takes only as long as some steps.
    dataset = {"source": "pvc://inputs/train.jsonl", "validation": {"fraction": 0.02}}
    job = training_job(name, steps=STEPS, cpu=cpu, dataset=dataset, retry={"limit": 1})
    job["spec"]["checkpoints"]["everySteps"] = INTERVAL
    return job


def outcome(status: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a run, without names and times."""
    exports = [(export["format"], export["digest"]) for export in status["exports"]]
    return {"exports": exports, "metrics": {key: status["metrics"][key] for key in ("loss", "evalLoss")}}


def logged_step(log: str) -> int:
    """Return the last step in a pod's log."""
    return max(map(int, re.findall(r'"step": (\d+)', log)), default=0)


def resumed_step(log: str) -> int:
    """Return the step of the checkpoint that a pod resumed from."""
    found = re.search(r"Resumed from step-(\d+)-e1", log)
    assert found, f"it did not resume:\n{log[:3000]}"
    return int(found[1])


def training_job(name: str, *, method: str = "lora", steps: int = 60, cpu: str = SHARE, **spec: Any) -> Object:
    """Return a small CPU TrainingJob on the demo's inputs; keyword arguments replace whole blocks of the spec."""
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
    """Return the condition of a type, or an empty dictionary."""
    return next((dict(c) for c in status.get("conditions", []) if c["type"] == kind), {})


def unfinished(pods: list[Object]) -> list[str]:
    return [p["metadata"]["name"] for p in pods if p.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
