"""What tests of the CRDs share: kubectl, and the fields of a schema."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.api.gateway_support import Kubernetes

Object = dict[str, Any]


def kubectl(kubernetes: Kubernetes, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl, which may fail."""
    command = [str(kubernetes.cluster.kubectl), "--kubeconfig", str(kubernetes.cluster.kubeconfig), *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def fields(schema: Object, path: str) -> list[tuple[str, Object]]:
    """Return every property with its path."""
    found = []
    for name, child in schema.get("properties", {}).items():
        found += [(f"{path}.{name}", child), *fields(child.get("items", child), f"{path}.{name}")]
    return found
