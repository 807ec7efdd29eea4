"""kubectl as a Python object, for the demo and the end-to-end tests."""

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
    """kubectl failed; the text is its message."""


class WaitError(RuntimeError):
    """A condition was not met in time; the text has the last observation."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster and namespace."""

    program: Path
    kubeconfig: Path
    namespace: str = "default"

    def command(self, *arguments: str) -> list[str]:
        """The full command line."""
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]

    def run(self, *arguments: str, text: str | None = None, timeout: float = 600) -> str:
        """Run and return stdout.

        Raises:
            KubectlError: kubectl failed; the text is its message.
        """
        done = subprocess.run(self.command(*arguments), input=text, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Object | None:
        """One object or list, or None when there is none."""
        found = self.run("get", *arguments, "--ignore-not-found", "-o", "json")
        document: Object | None = json.loads(found) if found.strip() else None
        return document

    def items(self, *arguments: str) -> list[Object]:
        """The objects of a list."""
        found = self.get(*arguments)
        return list(found["items"]) if found else []

    def apply(self, *documents: Object) -> None:
        """Server-side apply, as field manager `demo`."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.run("apply", "--server-side", "--field-manager=demo", "--force-conflicts", "-f", "-", text=text)

    def wait(
        self, what: str, observe: Callable[[], Any], done: Callable[[Any], bool], seconds: float, every: float = 0.5
    ) -> Any:
        """Poll until a condition is met, and return the observation that met it.

        Args:
            what: Description of the condition, for the error.
            observe: Reads the cluster; a KubectlError counts as not met.
            done: Returns whether an observation meets the condition.
            seconds: Timeout.
            every: Polling interval in seconds.

        Raises:
            WaitError: the condition was not met within the timeout.
        """
        end = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < end:
            try:
                last = observe()
            except KubectlError as failure:
                last = str(failure)
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
