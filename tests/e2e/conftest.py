"""A real node with Trainyard installed by its chart; every test runs through kubectl.

Processes of pytest-xdist (`-n 6`) share one installation and one namespace, so names of jobs differ between files.
Tests that disturb others, or read what all of them did, are in `alone`: these files run last, one after the other.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from cluster import node
from cluster.shell import locked
from demo import inputs, install, volume
from demo.kubectl import Kubectl, KubectlError, namespace
from demo.machine import COMMAND, cluster, load_images
from demo.manifest import load
from tests.e2e.support import EXAMPLE, VALUES, Site, clear

NAMESPACE = "trainyard-e2e"
ALONE = Path(__file__).parent / "alone"
EXAMPLE_FILE = "test_training.py"
SERVING_FILE = "test_serving.py"
"""Tests of the tier e2e-serving; they alone need the image of the engine."""
SHARING = (EXAMPLE_FILE, "test_exports.py", "test_tenants.py", "test_start.py", SERVING_FILE)
"""Files whose tests share jobs."""
IMAGES = ("operator", "trainer")
FIRST = (
    EXAMPLE_FILE,
    "test_exports.py",
    "test_nodes.py",
    "test_suspend.py",
    "test_evictions.py",
)
"""The longest files, started first to shorten the run."""
LAST = ("test_missing_image_fails_after_the_deadline", "test_whole_run.py")
"""Last of those in `alone`: a test that waits for a deadline, and one that reads what all tests did."""


class Tests(LoadFileScheduling):  # type: ignore[misc]  # xdist shows no types
    """Schedules single tests, and as one unit those of a file of SHARING, and those of `alone`."""

    def _split_scope(self, nodeid: str) -> str:
        if f"/{ALONE.name}/" in nodeid:
            return ALONE.name
        file = str(super()._split_scope(nodeid))
        return file if file.endswith(SHARING) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Tests:
    config.option.loadscopereorder = False
    return Tests(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(ALONE.parent):
            # Setup may build images, and a test may wait for others; each wait has its own timeout.
            item.add_marker(pytest.mark.timeout(7200, func_only=True))
    items.sort(key=place)


def place(item: pytest.Item) -> tuple[bool, int]:
    """Sort key of a test; the order of tests with equal keys does not change."""
    if item.path.parent != ALONE:
        return False, FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST)
    return True, next((number for number, name in enumerate(LAST, 1) if name in (item.name, item.path.name)), 0)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by all processes of this run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, shared: Path) -> Iterator[Site]:
    """Trainyard installed from the working tree; the first process sets it up, the last one removes it."""
    state = shared / "site.json"
    with (shared / "users").open("w") as users:
        with locked(shared / "site.lock", "another process prepares the installation; waiting for it"):
            if not state.exists():
                state.write_text(json.dumps(prepare(shared / "inputs", names_of_files(request.session.items))))
            fcntl.flock(users, fcntl.LOCK_SH)
        known = json.loads(state.read_text())
        kubectl = Kubectl(Path(known["kubectl"]), Path(known["kubeconfig"]), NAMESPACE)
        client = node.find()[0].client()
        yield Site(
            kubectl=kubectl, client=client, images=known["images"], inputs=shared / "inputs", began=known["began"]
        )
        if is_last(users):
            clear(kubectl, NAMESPACE)
            state.unlink()
            if known["started"]:
                cluster("down")


def is_last(users: TextIO) -> bool:
    """Return whether no other process holds the shared lock that this one releases."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="module", autouse=True)
def turn(request: pytest.FixtureRequest, shared: Path) -> Iterator[None]:
    """Run modules in parallel, except those in `alone`."""
    alone = request.path.parent == ALONE
    with (shared / "turn").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def names_of_files(items: list[pytest.Item]) -> set[str]:
    return {item.path.name for item in items}


def prepare(rows: Path, files: set[str]) -> dict[str, object]:
    """Start the node, install the chart, and fill the claim `inputs` of a fresh restricted namespace with `rows`.

    The example takes a whole core: if it is among the files, it starts before the jobs of other tests.
    """
    if os.geteuid() != 0:
        pytest.fail("the e2e tier starts a Kubernetes node and needs root")
    programs = Path(cluster("build", "node")[-1])
    was_running = is_running(programs)
    kubeconfig = cluster("up", "--fake-gpus", "2")[-1]
    kubectl = Kubectl(programs / "kubectl", Path(kubeconfig), NAMESPACE)
    images = load_images(*IMAGES, *(["server"] if SERVING_FILE in files else []))
    began = dt.datetime.now(dt.UTC).isoformat()
    install.install(kubectl, programs / "helm", images, *VALUES)
    clear(kubectl, NAMESPACE)
    kubectl.apply(namespace(NAMESPACE))
    write_inputs(rows)
    volume.fill(kubectl, images["trainer"], "inputs", rows)
    if EXAMPLE_FILE in files:
        example = load(EXAMPLE)
        kubectl.apply(example)
        name = example["metadata"]["name"]
        kubectl.run("wait", f"tj/{name}", "--for=jsonpath={.status.startTime}", "--timeout=900s", timeout=930)
    known = {"kubectl": str(kubectl.program), "kubeconfig": kubeconfig, "images": images}
    return known | {"began": began, "started": not was_running}


def write_inputs(directory: Path) -> None:
    """Write the demo's model and rows, and a file with an error in row 2."""
    directory.mkdir()
    for path in inputs.ensure().iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, directory / path.name)
    good = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    (directory / "broken.jsonl").write_text(f"{good}\n{{not json\n")


def is_running(programs: Path) -> bool:
    """Return whether the node of an earlier `hack/cluster up` is running."""
    known = subprocess.run([*COMMAND, "kubeconfig"], capture_output=True, text=True)
    if known.returncode:
        return False
    try:
        return "ok" in Kubectl(programs / "kubectl", Path(known.stdout.strip())).run("get", "--raw", "/readyz")
    except KubectlError:
        return False
