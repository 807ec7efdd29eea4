"""Install the chart with Helm, as the README describes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from demo.kubectl import Kubectl, KubectlError, namespace

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "trainyard"
TIMEOUT = 900
"""Seconds for new pods to become ready, and for old ones to end."""


def install(kubectl: Kubectl, helm: Path, images: dict[str, str], *values: str) -> None:
    """Install or upgrade Trainyard and wait until operator and gateway are ready and replaced pods have ended.

    Args:
        images: `operator`, `trainer` and `server` -> image reference.
        values: More `--set` assignments.

    Raises:
        KubectlError: Helm failed; the text is its message.
        WaitError: replaced pods did not end.
    """
    kubectl.apply(namespace(NAMESPACE))
    command = [str(helm), "upgrade", "--install", "trainyard", str(ROOT / "charts" / "trainyard")]
    command += [f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={NAMESPACE}", "--wait", f"--timeout={TIMEOUT}s"]
    for value in (*(f"image.{name}={reference}" for name, reference in images.items()), *values):
        command += ["--set", value]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pods = kubectl.run("get", "pods", "-n", NAMESPACE, "-o", "wide")
        raise KubectlError(f"helm: {done.stderr.strip()}\n{pods}")
    # Helm waits for the new pods only; a replaced operator may hold the lease until it ends.
    kubectl.wait("the pods that were replaced are gone", lambda: superfluous(kubectl), lambda left: left <= 0, TIMEOUT)


def superfluous(kubectl: Kubectl) -> int:
    """Return the number of pods, terminating ones included, beyond the replicas of the Deployments."""
    own = ("-n", NAMESPACE, "-l", "app.kubernetes.io/part-of=trainyard")
    pods = [pod for pod in kubectl.items("pods", *own) if pod["status"]["phase"] not in ("Succeeded", "Failed")]
    return len(pods) - sum(int(found["spec"]["replicas"]) for found in kubectl.items("deployments", *own))
