"""kubectl as a function: what the demo and the end-to-end tests do to a cluster, they do as a user would."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]


class KubectlError(RuntimeError):
    """kubectl refused; the text is what it said."""


class WaitError(RuntimeError):
    """A condition did not come true in time; the text says what was seen last."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl bound to one cluster and namespace."""

    program: Path
    kubeconfig: Path
    namespace: str = "default"

    def command(self, *words: str) -> list[str]:
        """The full command line."""
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *words]

    def run(self, *words: str, text: str | None = None, timeout: float = 600) -> str:
        """Run and return stdout.

        Raises:
            KubectlError: with kubectl's own message.
        """
        done = subprocess.run(self.command(*words), input=text, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *words: str) -> Object | None:
        """One object or list, or None when there is none."""
        found = self.run("get", *words, "--ignore-not-found", "-o", "json")
        document: Object | None = json.loads(found) if found.strip() else None
        return document

    def items(self, *words: str) -> list[Object]:
        """The objects of a list."""
        found = self.get(*words)
        return list(found["items"]) if found else []

    def apply(self, *documents: Object) -> None:
        """Server-side apply, as field manager `demo`."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.run("apply", "--server-side", "--field-manager=demo", "--force-conflicts", "-f", "-", text=text)

    def wait(
        self, what: str, seen: Callable[[], Any], done: Callable[[Any], bool], seconds: float, every: float = 0.5
    ) -> Any:
        """Look until `done` holds.

        Args:
            what: The condition in words, for the error.
            seen: Looks at the cluster; a KubectlError in it counts as not yet.
            done: Whether what was seen is what was waited for.
            seconds: Deadline.
            every: Seconds between two looks.

        Raises:
            WaitError: the deadline passed.
        """
        end = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < end:
            try:
                last = seen()
            except KubectlError as refused:
                last = str(refused)
            else:
                if done(last):
                    return last
            time.sleep(every)
        raise WaitError(f"not within {seconds:.0f} s: {what}; last seen: {_short(last)}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) < 4000 else text[:4000] + " ..."


def namespace(name: str) -> Object:
    """A namespace that enforces Pod Security `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def claim(name: str, size: str = "2Gi") -> Object:
    """A ReadWriteOnce claim of the default storage class."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def pod(name: str, image: str, command: Sequence[str], claims: dict[str, str], *, read_only: bool = False) -> Object:
    """A restricted one-shot pod of the trainer image.

    Args:
        claims: Claim name -> directory it is mounted at.
        read_only: Mount them read-only.
    """
    scratch = {"name": "tmp", "mountPath": "/tmp"}
    mounts = [{"name": c, "mountPath": path, "readOnly": read_only} for c, path in claims.items()]
    volumes: list[Object] = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    container = {
        "name": "main",
        "image": image,
        "command": list(command),
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
        "volumeMounts": [scratch, *mounts],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "14Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 2,
            "securityContext": security,
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "40Gi"}}, *volumes],
        },
    }
