"""Fixtures of the api tier: one control plane and one operator for the tests of the operator and the CRD.

Tests mostly wait, so more processes than cores run them. Each process runs a file, or the files that share a control
plane; the longest files start first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from cluster import api
from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import RESTRICTED, TIMEOUT, Kubernetes, install_crd, plane
from tests.api.operator_support import NODE, Operator, Team, leading, team_namespace

ORDER = (
    ("test_faults",),
    ("test_queue",),
    ("test_kueue",),
    ("test_gang",),
    ("test_queue_scale",),
    ("test_gateway_load",),
    ("test_artifact_reader",),
    (
        "test_operator",
        "test_exports",
        "test_tenants",
        "test_memory_warning",
        "test_pod_options",
        "test_foreign_changes",
        "test_public_reports",
    ),
    ("test_crd", "test_modeldeployment_crd", "test_error_corpus", "test_examples"),
    ("test_gateway",),
    ("test_gateway_api",),
    ("test_health",),
    ("test_chart",),
)
"""Groups of files in the order of their start; unlisted files follow."""
PLACES = {f"{name}.py": (place, number) for place, names in enumerate(ORDER) for number, name in enumerate(names)}


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Assigns files to processes; the files of one row of ORDER count as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        place = PLACES.get(Path(file).name)
        return file if place is None else ORDER[place[0]][0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling:
    config.option.loadscopereorder = False
    return FileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.timeout(3600, func_only=True))  # each wait has its own timeout
    items.sort(key=lambda item: PLACES.get(item.path.name, (len(ORDER), 0)) if item.path.parent == here else (-1, 0))


@pytest.fixture(scope="session")
def control_plane_and_early_operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kubernetes, Operator]]:
    """A control plane, and an operator that was started before the CRD existed and has exited."""
    early: list[Operator] = []

    def first(cluster: api.Cluster) -> None:
        kubernetes = Kubernetes(cluster)
        kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        early.append(Operator(kubernetes, tmp_path_factory.mktemp("early"), "early"))
        early[0].process.wait(TIMEOUT)
        install_crd(cluster)

    with plane(f"test-operator-{os.getpid()}", first=first) as kubernetes:
        yield kubernetes, early[0]


@pytest.fixture(scope="session")
def too_early(control_plane_and_early_operator: tuple[Kubernetes, Operator]) -> Operator:
    """An operator that was started before the CRD existed and has exited."""
    return control_plane_and_early_operator[1]


@pytest.fixture(scope="session")
def control_plane(control_plane_and_early_operator: tuple[Kubernetes, Operator]) -> Kubernetes:
    """A control plane with the CRD, the operator's namespace and a node."""
    kubernetes = control_plane_and_early_operator[0]
    # A node without a kubelet and without capacity: the tests bind pods to it, the scheduler does not.
    kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    return kubernetes


@pytest.fixture(scope="session")
def session_operator(control_plane: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with leading(Operator(control_plane, tmp_path_factory.mktemp("operator"))) as operator:
        yield operator


@pytest.fixture
def operator(session_operator: Operator) -> Operator:
    """The operator, running and leading."""
    if session_operator.process.poll() is not None:
        session_operator.restart()
    return session_operator


@pytest.fixture
def team(control_plane: Kubernetes) -> Iterator[Team]:
    """A separate namespace for each test."""
    with team_namespace(control_plane, "team", RESTRICTED) as made:
        yield made


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of the queue of one module's operator, empty at first."""
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_text("{}")
    return path
