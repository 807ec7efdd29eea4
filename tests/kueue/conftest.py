"""One control plane with fake nodes, Kueue's own manager and the operator in Kueue mode."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.api import kueue_support, kwok_support
from tests.api.gateway_support import Kubernetes
from tests.api.kueue_support import CHART
from tests.api.kueue_writes import Recorder
from tests.api.operator_support import USER, Operator, leading, requests_by
from tests.kueue.cluster_fixture import KueueTeam, cluster_queue, kueue_team
from tests.kueue.manager import Kueue


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Kubernetes]:
    with kwok_support.control_plane(f"test-real-kueue-{os.getpid()}", nodes=2, seconds={}) as made:
        yield made


@pytest.fixture(scope="session")
def session_kueue(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kueue]:
    kueue = Kueue(kubernetes, tmp_path_factory.mktemp("kueue"))
    kueue.install()
    kueue_support.priority_classes(kubernetes)
    try:
        kueue.start()
        yield kueue
    finally:
        kueue.kill()


@pytest.fixture(scope="session")
def recorder(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    with Recorder(kubernetes, tmp_path_factory.mktemp("recorder")) as recorder:
        yield recorder


@pytest.fixture(scope="session")
def session_operator(
    kubernetes: Kubernetes, session_kueue: Kueue, recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    with leading(
        Operator(kubernetes, folder, "kueue", chart=CHART, through=recorder.kubeconfig, TRAINYARD_QUEUE_MODE="Kueue")
    ) as operator:
        yield operator


@pytest.fixture
def kueue(session_kueue: Kueue) -> Kueue:
    """Kueue, running."""
    session_kueue.restart_if_dead()
    return session_kueue


@pytest.fixture
def operator(session_operator: Operator) -> Operator:
    """The operator, running and leading."""
    if session_operator.process.poll() is not None:
        session_operator.restart()
    return session_operator


@pytest.fixture
def team(kubernetes: Kubernetes, kueue: Kueue, operator: Operator, recorder: Recorder) -> Iterator[KueueTeam]:
    """A namespace of a test; the ClusterQueue has 2 GPUs. The operator's writes are checked in the end."""
    cluster_queue(kubernetes, 2)
    seen = len(kubernetes.audit())
    with kueue_team(kubernetes, "team") as made:
        yield made
        kueue.restart_if_dead()
        if operator.process.poll() is not None:
            operator.restart()
        cluster_queue(kubernetes, 2)
    recorder.check_writes()
    written = [entry["verb"] for entry in requests_by(kubernetes, USER, seen) if _is_write_of_job(entry)]
    assert set(written) <= {"create", "patch", "delete"}, written


def _is_write_of_job(entry: dict[str, object]) -> bool:
    reference = entry.get("objectRef")
    assert reference is None or isinstance(reference, dict)
    is_job = reference is not None and (reference.get("resource"), reference.get("apiGroup")) == ("jobs", "batch")
    return is_job and entry["verb"] not in ("get", "list", "watch")
