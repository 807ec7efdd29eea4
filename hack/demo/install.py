"""Install the chart with Helm, as the README says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from demo.kubectl import Kubectl, KubectlError, namespace

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "trainyard"
PATIENCE = 900
"""Seconds for new pods to become ready, and for old ones to end."""


def install(kubectl: Kubectl, helm: Path, images: dict[str, str], *values: str) -> None:
    """Install or upgrade Trainyard and wait until operator and gateway are ready, and no older ones left.

    Args:
        images: `operator` and `trainer` -> image reference.
        values: More `--set` assignments.

    Raises:
        KubectlError: Helm's own message.
        WaitError: pods that were replaced do not end.
    """
    kubectl.apply(namespace(NAMESPACE))
    words = [str(helm), "upgrade", "--install", "trainyard", str(ROOT / "charts" / "trainyard")]
    words += [f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={NAMESPACE}", "--wait", f"--timeout={PATIENCE}s"]
    for value in (f"image.operator={images['operator']}", f"image.trainer={images['trainer']}", *values):
        words += ["--set", value]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pods = kubectl.run("get", "pods", "-n", NAMESPACE, "-o", "wide")
        raise KubectlError(f"helm: {done.stderr.strip()}\n{pods}")
    # Helm waits for the new pods, not for the end of those they replace: an operator of before may lead until it ends.
    kubectl.wait("the pods that were replaced are gone", lambda: superfluous(kubectl), lambda left: left <= 0, PATIENCE)


def superfluous(kubectl: Kubectl) -> int:
    """How many pods there are, ending ones included, beyond those that the Deployments ask for."""
    own = ("-n", NAMESPACE, "-l", "app.kubernetes.io/part-of=trainyard")
    pods = [pod for pod in kubectl.items("pods", *own) if pod["status"]["phase"] not in ("Succeeded", "Failed")]
    return len(pods) - sum(int(found["spec"]["replicas"]) for found in kubectl.items("deployments", *own))
