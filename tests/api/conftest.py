"""One control plane and one operator for the tests of the operator and the CRD."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cluster import api
from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.chart_support import ROOT
from tests.api.gateway_support import RESTRICTED, Kubernetes, until
from tests.api.operator_support import NODE, Operator, Team, namespace_of_a_team


@pytest.fixture(scope="session")
def empty_plane() -> Iterator[Kubernetes]:
    """A control plane with nothing but the operator's namespace."""
    cluster = api.start(f"test-operator-{os.getpid()}")
    try:
        kubernetes = Kubernetes(cluster)
        kubernetes.namespace(SYSTEM)
        yield kubernetes
    finally:
        cluster.stop(purge=True)


@pytest.fixture(scope="session")
def too_early(empty_plane: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """An operator that was started before the CRD was there, and has ended."""
    operator = Operator(empty_plane, tmp_path_factory.mktemp("early"), "early")
    operator.process.wait(20)
    return operator


@pytest.fixture(scope="session")
def control_plane(empty_plane: Kubernetes, too_early: Operator) -> Kubernetes:
    """A control plane with the CRD, the operator's namespace and a node."""
    kubernetes = empty_plane
    kubernetes.kubectl("apply", "--server-side", "-f", str(ROOT / "crds/manifests/trainingjobs.yaml"))
    until(kubernetes.serves_trainingjobs)
    # A node without a kubelet and without room: nothing is scheduled to it, the tests bind pods to it.
    kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    return kubernetes


@pytest.fixture(scope="session")
def session_operator(control_plane: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(control_plane, tmp_path_factory.mktemp("operator"))
    try:
        operator.wait_for_leadership()
        yield operator
    finally:
        operator.kill()


@pytest.fixture
def operator(session_operator: Operator) -> Operator:
    """The operator, running and leading."""
    if session_operator.process.poll() is not None:
        session_operator.restart()
    return session_operator


@pytest.fixture
def team(control_plane: Kubernetes) -> Iterator[Team]:
    """A namespace of its own for each test."""
    with namespace_of_a_team(control_plane, "team", RESTRICTED) as made:
        yield made
