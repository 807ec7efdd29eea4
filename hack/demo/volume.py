"""Copy a directory of this machine to a claim, through a pod."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

from demo.kubectl import Kubectl, KubectlError, claim, pod

_WAIT = "import signal; signal.signal(15, lambda *_: exit(0)); signal.pause()"
_UNPACK = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/claim')"


def fill(kubectl: Kubectl, image: str, name: str, source: Path, size: str = "2Gi") -> None:
    """Copy the files of `source` to the claim `name`, unless they are already there.

    Args:
        image: Any image with Python (the trainer's).
        name: Claim in the namespace of `kubectl`; made when missing.
        source: Directory of this machine.
        size: Size of the claim when it is made.
    """
    digest = _digest(source)
    found = kubectl.get("pvc", name)
    if found and found["metadata"].get("annotations", {}).get("demo/digest") == digest:
        return
    if not found:
        kubectl.apply(claim(name, size))
    loader = f"fill-{name}"
    kubectl.run("delete", "pod", loader, "--ignore-not-found", "--wait=true")
    kubectl.apply(pod(loader, image, ["python", "-c", _WAIT], {name: "/claim"}))
    kubectl.run("wait", f"pod/{loader}", "--for=condition=Ready", "--timeout=900s", timeout=930)
    _send(kubectl, loader, source)
    kubectl.run("annotate", "pvc", name, f"demo/digest={digest}", "--overwrite")
    kubectl.run("delete", "pod", loader, "--wait=true")


def _send(kubectl: Kubectl, loader: str, source: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as files:
        for path in sorted(source.iterdir()):
            files.add(path, arcname=path.name)
    command = kubectl.command("exec", "-i", loader, "--", "python", "-c", _UNPACK)
    try:
        done = subprocess.run(command, input=archive.getvalue(), capture_output=True, timeout=900)
    except subprocess.TimeoutExpired as late:
        raise KubectlError(f"copying {source} into the claim took more than 900 s: {late.stderr!r}") from late
    if done.returncode:
        raise KubectlError(f"copying {source} into the claim failed: {done.stderr.decode(errors='replace')}")


def _digest(source: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(source)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
