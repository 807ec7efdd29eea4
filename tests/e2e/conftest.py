"""A real node with Trainyard installed by its chart; every test runs through kubectl."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import inputs, install, volume
from demo.kubectl import Kubectl, KubectlError, namespace
from tests.e2e.support import ROOT, Site

CLUSTER = [sys.executable, str(ROOT / "hack" / "cluster")]
NAMESPACE = "trainyard-e2e"


def cluster(*words: str) -> str:
    done = subprocess.run([*CLUSTER, *words], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"hack/cluster {' '.join(words)} failed; see its messages above"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model and rows, and a file with a mistake in row 2."""
    directory = tmp_path_factory.mktemp("inputs")
    made = inputs.ensure()
    for path in made.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, directory / path.name)
    good = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    (directory / "broken.jsonl").write_text(f"{good}\n{{not json\n")
    return directory


@pytest.fixture(scope="session")
def kubectl() -> Iterator[Kubectl]:
    """kubectl on a running node with two fake GPUs; a node that was not running before is stopped afterwards."""
    if os.geteuid() != 0:
        pytest.fail("the e2e tier starts a Kubernetes node and needs root")
    programs = Path(cluster("build", "node").splitlines()[-1])
    was_running = answers(programs)
    kubeconfig = cluster("up", "--fake-gpus", "2").splitlines()[-1]
    yield Kubectl(programs / "kubectl", Path(kubeconfig), NAMESPACE)
    if not was_running:
        cluster("down")


def answers(programs: Path) -> bool:
    """Whether the node of an earlier `hack/cluster up` is still running."""
    known = subprocess.run([*CLUSTER, "kubeconfig"], capture_output=True, text=True)
    if known.returncode:
        return False
    try:
        return "ok" in Kubectl(programs / "kubectl", Path(known.stdout.strip())).run("get", "--raw", "/readyz")
    except KubectlError:
        return False


@pytest.fixture(scope="session")
def site(kubectl: Kubectl, rows: Path) -> Iterator[Site]:
    """Trainyard installed from the working tree, and a fresh restricted namespace with the inputs in a claim."""
    printed = cluster("load", "all").splitlines()
    images = dict(line.split("=", 1) for line in printed if "_IMAGE=" in line)
    images = {name.removesuffix("_IMAGE").lower(): reference for name, reference in images.items()}
    programs = kubectl.program.parent
    began = dt.datetime.now(dt.UTC).isoformat()
    install.install(kubectl, programs / "helm", images)
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", timeout=300)
    kubectl.apply(namespace(NAMESPACE))
    volume.fill(kubectl, images["trainer"], "inputs", rows)
    yield Site(kubectl=kubectl, images=images, inputs=rows, began=began)
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=true", timeout=300)
