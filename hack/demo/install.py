"""Install the chart with Helm, as the README says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from demo.kubectl import Kubectl, KubectlError, namespace

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "trainyard"


def install(kubectl: Kubectl, helm: Path, images: dict[str, str], *values: str) -> None:
    """Install or upgrade Trainyard and wait until operator and gateway are ready.

    Args:
        images: `operator` and `trainer` -> image reference.
        values: More `--set` assignments.

    Raises:
        KubectlError: Helm's own message.
    """
    kubectl.apply(namespace(NAMESPACE))
    words = [str(helm), "upgrade", "--install", "trainyard", str(ROOT / "charts" / "trainyard")]
    words += [f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={NAMESPACE}", "--wait", "--timeout=15m"]
    for value in (f"image.operator={images['operator']}", f"image.trainer={images['trainer']}", *values):
        words += ["--set", value]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pods = kubectl.run("get", "pods", "-n", NAMESPACE, "-o", "wide")
        raise KubectlError(f"helm: {done.stderr.strip()}\n{pods}")
