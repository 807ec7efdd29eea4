"""Before and after, side by side: runs the trainer's compare command in a pod beside the run's claim."""

from __future__ import annotations

import json
from dataclasses import dataclass

from demo.kubectl import Kubectl, KubectlError, Object, pod


@dataclass(frozen=True)
class Comparison:
    """What the trainer's compare command says about a finished run.

    Attributes:
        report: Text for people.
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
    words = ["python", "-m", "trainyard_trainer", "compare", "--model", source, "--adapter", f"/run-volume/{path}"]
    words += ["--data", "/inputs/heldout.jsonl", "--method", job["spec"]["method"], "--json"]
    runner = f"compare-{name}"
    kubectl.run("delete", "pod", runner, "--ignore-not-found", "--wait=true")
    kubectl.apply(_pod(runner, image, words, claim))
    kubectl.wait(f"pod {runner} ends", lambda: _phase(kubectl, runner), lambda p: p in ("Succeeded", "Failed"), 1800)
    log = kubectl.run("logs", runner)
    if _phase(kubectl, runner) == "Failed":
        raise KubectlError(f"the comparison failed:\n{log}")
    kubectl.run("delete", "pod", runner, "--wait=false")
    report, _, document = log.rstrip().rpartition("\n")
    loss = json.loads(document)["evalLoss"]
    return Comparison(report, loss["before"], loss["after"], loss["afterShuffled"])


def _pod(runner: str, image: str, words: list[str], claim: str) -> Object:
    return pod(runner, image, words, {"inputs": "/inputs", claim: "/run-volume"}, read_only=True)


def _phase(kubectl: Kubectl, runner: str) -> str:
    return kubectl.run("get", "pod", runner, "-o", "jsonpath={.status.phase}")
