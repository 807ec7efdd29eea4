"""The chart, rendered by Helm."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from cluster import binaries

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "trainyard"
NAMESPACE = "trainyard"
MINIMAL = CHART / "ci" / "minimal-values.yaml"

Object = dict[str, Any]


def helm(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Helm."""
    program = binaries.ensure(["helm"]) / "helm"
    done = subprocess.run([str(program), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done


def render(values: Path = MINIMAL, *words: str) -> list[Object]:
    """Return the rendered objects of the chart."""
    version = f"--kube-version={binaries.KUBERNETES}"
    done = helm("template", "trainyard", str(CHART), version, f"--namespace={NAMESPACE}", f"--values={values}", *words)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """Return the object of that kind and name."""
    found = [entry for entry in objects if (entry["kind"], entry["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)} in the chart"
    return found[0]
