"""Before and after, side by side: runs the trainer's compare command in a pod beside the run's claim."""

from __future__ import annotations

from demo.kubectl import Kubectl, KubectlError, Object, pod


def compare(kubectl: Kubectl, image: str, name: str, *, as_json: bool = False) -> str:
    """What `trainyard-trainer compare` prints for a finished TrainingJob whose rows lie in the claim `inputs`.

    Raises:
        KubectlError: the comparison failed; the text is its log.
    """
    job = kubectl.get("trainingjob", name)
    assert job is not None
    claim, _, path = job["status"]["exports"][0]["uri"].removeprefix("pvc://").partition("/")
    source = job["spec"]["model"]["source"].replace("pvc://inputs", "/inputs")
    words = ["python", "-m", "trainyard_trainer", "compare", "--model", source, "--adapter", f"/run-volume/{path}"]
    words += ["--data", "/inputs/heldout.jsonl", "--method", job["spec"]["method"], *(["--json"] if as_json else [])]
    runner = f"compare-{name}"
    kubectl.run("delete", "pod", runner, "--ignore-not-found", "--wait=true")
    kubectl.apply(_pod(runner, image, words, claim))
    kubectl.wait(f"pod {runner} ends", lambda: _phase(kubectl, runner), lambda p: p in ("Succeeded", "Failed"), 600)
    log = kubectl.run("logs", runner)
    if _phase(kubectl, runner) == "Failed":
        raise KubectlError(f"the comparison failed:\n{log}")
    kubectl.run("delete", "pod", runner, "--wait=false")
    return log


def _pod(runner: str, image: str, words: list[str], claim: str) -> Object:
    return pod(runner, image, words, {"inputs": "/inputs", claim: "/run-volume"}, read_only=True)


def _phase(kubectl: Kubectl, runner: str) -> str:
    return kubectl.run("get", "pod", runner, "-o", "jsonpath={.status.phase}")
