"""Runs the trainer's compare command in a pod that mounts the claim of the run."""

from __future__ import annotations

import json
from dataclasses import dataclass

from demo.kubectl import Kubectl, KubectlError, Object, pod


@dataclass(frozen=True)
class Comparison:
    """Result of the trainer's compare command.

    Attributes:
        report: Text of the comparison.
        before: Held-out loss of the base model, in nats per token.
        after: Held-out loss of the trained model.
        after_shuffled: The same with each answer under another row's question.
    """

    report: str
    before: float
    after: float
    after_shuffled: float


def compare(kubectl: Kubectl, image: str, name: str) -> Comparison:
    """Compare a finished TrainingJob, whose rows lie in the claim `inputs`, with its base model.

    Raises:
        KubectlError: the comparison failed; the text is its log.
    """
    job = kubectl.get("trainingjob", name)
    assert job is not None
    claim, _, path = job["status"]["exports"][0]["uri"].removeprefix("pvc://").partition("/")
    source = job["spec"]["model"]["source"].replace("pvc://inputs", "/inputs")
    files = {"model": source, "adapter": f"/run-volume/{path}", "data": "/inputs/heldout.jsonl"}
    command = ["python", *compare_arguments(**files, method=job["spec"]["method"])]
    runner = f"compare-{name}"
    kubectl.run("delete", "pod", runner, "--ignore-not-found", "--wait=true")
    kubectl.apply(_pod(runner, image, command, claim))
    kubectl.wait(f"pod {runner} ends", lambda: _phase(kubectl, runner), lambda p: p in ("Succeeded", "Failed"), 1800)
    log = kubectl.run("logs", runner)
    if _phase(kubectl, runner) == "Failed":
        raise KubectlError(f"the comparison failed:\n{log}")
    kubectl.run("delete", "pod", runner, "--wait=false")
    return parse_comparison(log)


def compare_arguments(*, model: str, adapter: str, data: str, method: str) -> list[str]:
    """Return the Python arguments that run the trainer's compare command."""
    options = ["--model", model, "--adapter", adapter, "--data", data, "--method", method, "--json"]
    return ["-m", "trainyard_trainer", "compare", *options]


def parse_comparison(output: str) -> Comparison:
    """Parse the output of the compare command: a report, then one line of JSON."""
    report, _, document = output.rstrip().rpartition("\n")
    loss = json.loads(document)["evalLoss"]
    return Comparison(report, loss["before"], loss["after"], loss["afterShuffled"])


def _pod(runner: str, image: str, command: list[str], claim: str) -> Object:
    return pod(runner, image, command, {"inputs": "/inputs", claim: "/run-volume"}, read_only=True)


def _phase(kubectl: Kubectl, runner: str) -> str:
    return kubectl.run("get", "pod", runner, "-o", "jsonpath={.status.phase}")
