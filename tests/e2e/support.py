"""Builders and questions for the end-to-end tests; everything goes through kubectl, as a user would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import install
from demo.kubectl import Kubectl, Object

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Site:
    """An installed Trainyard on a real node: a namespace of its own, the demo's inputs in the claim `inputs`."""

    kubectl: Kubectl
    images: dict[str, str]
    inputs: Path
    began: str = ""
    """When the tier began, as the API server's audit log writes times."""

    def upgrade(self, **images: str) -> None:
        """Install the chart again with other images."""
        install.install(self.kubectl, self.kubectl.program.parent / "helm", self.images | images)

    def job(self, name: str) -> Object:
        found = self.kubectl.get("trainingjob", name)
        assert found is not None, f"TrainingJob {name} is gone"
        return found

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.job(name).get("status", {}))

    def pods(self, name: str) -> list[Object]:
        return self.kubectl.items("pods", "-l", f"trainyard.dev/trainingjob={name}")

    def scale(self, component: str, replicas: int) -> None:
        """Let that many pods of the operator or the gateway run, and wait until they do."""
        name = f"trainyard-{component}"
        self.kubectl.run("scale", f"deploy/{name}", "-n", install.NAMESPACE, f"--replicas={replicas}")
        pods = ("pods", "-n", install.NAMESPACE, "-l", f"app.kubernetes.io/name={name}")
        self.kubectl.wait(
            f"{replicas} pods of {name} are ready",
            lambda: [condition(pod["status"], "Ready").get("status") for pod in self.kubectl.items(*pods)],
            lambda ready: ready == ["True"] * replicas,
            120,
        )

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        self.kubectl.run("patch", "trainingjob", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def wait_phase(self, name: str, *phases: str, seconds: float = 240) -> dict[str, Any]:
        """Wait until the job is in one of the phases; a failed job ends the wait at once."""
        final = {"Failed", "Succeeded", "Stopped"}
        seen = self.kubectl.wait(
            f"TrainingJob {name} in phase {' or '.join(phases)}",
            lambda: self.status(name),
            lambda status: status.get("phase") in {*phases, *final},
            seconds,
        )
        assert seen["phase"] in phases, f"{name} is {seen['phase']}: {seen.get('message')}\n{seen.get('logTail')}"
        return dict(seen)

    def wait_step(self, name: str, step: int, seconds: float = 240) -> dict[str, Any]:
        """Wait until the status shows at least that step."""
        return dict(
            self.kubectl.wait(
                f"TrainingJob {name} at step {step}",
                lambda: self.status(name),
                lambda status: status.get("progress", {}).get("step", 0) >= step or status.get("phase") == "Failed",
                seconds,
            )
        )


def training_job(name: str, *, method: str = "lora", steps: int = 60, **spec: Any) -> Object:
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
        "checkpoints": {"everySteps": 50, "gracePeriodSeconds": 30},
        "resources": {"gpus": 0, "cpu": "1", "memory": "3Gi"},
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
