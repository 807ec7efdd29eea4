"""Probes and metrics of operator and gateway, against a real API server."""

from __future__ import annotations

import itertools
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.chart_support import ROOT
from tests.api.gateway_support import Gateway, Job, Kubernetes, Pod, control_plane, fetch, sample, until
from tests.api.operator_support import NODE, Team, offer_gpus, service_account, team_namespace
from tests.faults.plan import Action, Fault, Request
from tests.faults.process import OperatorProcess
from tests.faults.proxy import Proxy
from trainyard_crds.constants import kubeflow_path, progress_path
from trainyard_crds.trainingjob_status import Phase
from trainyard_gateway.connection_limit import INTAKE_LIMIT

pytestmark = pytest.mark.api
DEAD = "watches: lists of trainingjobs show changes that the watch does not bring"
MEMORY = 400e6
"""Most bytes of the gateway at its connection limit; the chart allows 512 MiB."""
KINDS = frozenset({"trainingjobs", "jobs", "pods"})


@pytest.fixture(scope="module")
def plane() -> Iterator[Kubernetes]:
    with control_plane(f"test-health-{os.getpid()}") as kubernetes:
        kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        yield kubernetes


@pytest.fixture
def proxy(plane: Kubernetes, tmp_path: Path) -> Iterator[Proxy]:
    with Proxy(plane.cluster.server, plane.cluster.ca, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def operator(plane: Kubernetes, proxy: Proxy, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator behind the proxy with a resync every second instead of minutes."""
    account = proxy.kubeconfig(service_account(plane, tmp_path))
    operator = OperatorProcess(account, tmp_path, resync_period=1.0)
    try:
        operator.wait_for_leadership()
        yield operator
        assert operator.stop() == 0
    finally:
        operator.kill()


@pytest.fixture
def gateway(plane: Kubernetes, proxy: Proxy, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway behind the proxy that is not ready, because the API server has been unreachable since its start."""
    proxy.down = True
    gateway = Gateway(plane, tmp_path, through=proxy.kubeconfig)
    yield gateway
    proxy.down = False
    assert gateway.stop() == 0


@pytest.fixture
def team(plane: Kubernetes) -> Iterator[Team]:
    with team_namespace(plane, "team") as made:
        yield made


def healthz(operator: OperatorProcess) -> tuple[int, str]:
    return fetch(operator.health_port, "/healthz")


def metric_names(text: str) -> set[str]:
    """Return the names of the samples of Trainyard's metrics, without derived ones."""
    names = {one.name for family in text_string_to_metric_families(text) for one in family.samples}
    return {name for name in names if name.startswith("trainyard_") and not name.endswith(("_bucket", "_created"))}


def test_operator_is_unhealthy_while_its_watches_are_dead(operator: OperatorProcess, proxy: Proxy, team: Team) -> None:
    job = team.create("watched")
    job.run()
    assert healthz(operator) == (200, "ok")
    proxy.stale = KINDS  # no event is forwarded; lists are current, because none was saved
    counter = itertools.count()

    def dead() -> bool:
        job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": str(next(counter))}}})
        return healthz(operator) == (503, DEAD)

    until(dead)
    later = team.create("unwatched")
    until(lambda: team.client.exists(later.child_path))  # the operator still works from lists
    proxy.stale = frozenset()
    until(lambda: healthz(operator) == (200, "ok"))
    assert operator.starts == 1 + operator.lost
    assert value(operator, "trainyard_watch_missed_total") >= 2


def metrics(operator: OperatorProcess) -> str:
    return fetch(operator.health_port, "/metrics")[1]


def value(operator: OperatorProcess, name: str, **labels: str) -> float:
    return sample(metrics(operator), name, **labels)


def test_operator_metrics_are_correct_and_documented(
    operator: OperatorProcess, proxy: Proxy, plane: Kubernetes, team: Team
) -> None:
    started_at = time.monotonic()
    proxy.faults.append(Fault(action=Action.ERROR, at=lambda request: request.label == "POST jobs"))
    team.create("runs").run()
    team.create("waits", suspend=True).wait("Suspended")
    assert value(operator, "trainyard_reconcile_errors_total", error="ServerError") == 1
    team.create("large", resources={"gpus": 4}).wait("Queued")
    until(lambda: value(operator, "trainyard_waiting_jobs", pool="nvidia.com/gpu") == 1)
    offer_gpus(plane, NODE, "nvidia.com/gpu", 2)
    until(lambda: value(operator, "trainyard_free_gpus", resource="nvidia.com/gpu") == 2)
    until(lambda: phases_in_metrics(operator) == phases(plane))
    assert phases(plane)["Running"] >= 1
    assert value(operator, "trainyard_leader") == 1
    assert value(operator, "trainyard_api_requests_total", verb="POST", resource="jobs", code="500") == 1
    assert value(operator, "trainyard_api_requests_total", verb="POST", resource="jobs", code="201") >= 1
    assert (
        value(operator, "trainyard_api_requests_total", verb="PATCH", resource="trainingjobs/status", code="200") >= 3
    )
    until(lambda: value(operator, "trainyard_watch_missed_total") == missed(operator))  # zero if events arrive in time
    until(lambda: 0 <= value(operator, "trainyard_last_list_age_seconds") < time.monotonic() - started_at)  # it resyncs
    until(lambda: value(operator, "trainyard_queue_depth") == 0)
    before = value(operator, "trainyard_reconcile_seconds_count")
    age = until(lambda: value(operator, "trainyard_last_event_age_seconds", kind="trainingjobs"))
    team.create("late", suspend=True).wait("Suspended")
    until(lambda: value(operator, "trainyard_reconcile_seconds_count") > before)  # counted after its writes
    assert value(operator, "trainyard_reconcile_seconds_sum") > 0
    assert age > 0
    proxy.stale = KINDS
    ages = {kind: value(operator, "trainyard_last_event_age_seconds", kind=kind) for kind in KINDS}
    assert all(0 < age < time.monotonic() - started_at for age in ages.values()), ages
    until(lambda: all(value(operator, "trainyard_last_event_age_seconds", kind=kind) > ages[kind] for kind in KINDS))
    proxy.stale = frozenset()
    assert value(operator, "process_resident_memory_bytes") > 10e6
    assert metric_names(metrics(operator)) == documented("trainyard_") - documented("trainyard_gateway_")


def missed(operator: OperatorProcess) -> int:
    """Return the number of changes in lists that the watch had missed, from the log."""
    return sum(map(int, re.findall(r"showed (\d+) changes that the watch had not", operator.log())))


def phases(plane: Kubernetes) -> Counter[str]:
    """Return the number of TrainingJobs by phase, from the API server."""
    items = plane.client.get("/apis/trainyard.dev/v1alpha1/trainingjobs")["items"]
    return Counter(item["status"]["phase"] for item in items)


def phases_in_metrics(operator: OperatorProcess) -> Counter[str]:
    text = metrics(operator)
    shown = {str(phase): int(sample(text, "trainyard_jobs", phase=str(phase))) for phase in Phase}
    return Counter({phase: count for phase, count in shown.items() if count})


def documented(prefix: str) -> set[str]:
    """Return the metric names in the tables of docs/metrics.md."""
    found = re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name for name in found if name.startswith(prefix)}


# --- the gateway ------------------------------------------------------------------------------------------------------


def running_job(plane: Kubernetes, name: str) -> tuple[Job, Pod]:
    job = plane.job(name)
    pod = job.pod()
    job.record(pod, phase="Running")
    return job, pod


def test_gateway_without_api_server_is_healthy_and_not_ready(gateway: Gateway, proxy: Proxy, plane: Kubernetes) -> None:
    job, pod = running_job(plane, "early")
    assert gateway.plain("/healthz") == (200, "ok")
    assert gateway.plain("/readyz") == (503, "the TrainingJobs were not listed yet")
    answer = gateway.report(job, pod, 1, 10)
    assert (answer.code, answer.reason, answer.headers["retry-after"]) == (503, "NotReady", "2")
    proxy.down = False
    gateway.wait_until_ready()
    until(lambda: gateway.report(job, pod, 1, 10).code == 200)
    until(lambda: job.status().get("progress"))


def test_gateway_keeps_accepted_reports_during_an_api_server_outage(
    gateway: Gateway, proxy: Proxy, plane: Kubernetes
) -> None:
    job, pod = running_job(plane, "known")
    unknown, unknown_pod = running_job(plane, "unknown")
    proxy.down = False
    gateway.wait_until_ready()
    until(lambda: gateway.report(job, pod, 1, 10).code == 200)
    until(lambda: job.status().get("progress"))
    proxy.down = True
    until(lambda: "trainingjobs cannot be watched" in gateway.log_text())
    assert gateway.report(job, pod, 2, 20).code == 200  # its token review is cached
    answer = gateway.report(unknown, unknown_pod, 1, 10)
    assert (answer.code, answer.reason, answer.headers["retry-after"]) == (503, "ApiUnavailable", "5")
    until(lambda: gateway.metric("trainyard_gateway_status_writes_total", outcome="retry") >= 1)
    until(lambda: gateway.metric("trainyard_gateway_writes_overdue") == 1)  # zero while a write is in flight
    until(lambda: gateway.metric("trainyard_gateway_watch_silence_seconds") > 1)
    assert (gateway.plain("/healthz"), gateway.plain("/readyz")) == ((200, "ok"), (200, "ok"))
    assert job.status()["progress"]["step"] == 10
    proxy.down = False
    until(lambda: job.status()["progress"]["step"] == 20)
    until(lambda: gateway.metric("trainyard_gateway_writes_overdue") == 0)


def test_gateway_metrics_are_correct_and_documented(gateway: Gateway, proxy: Proxy, plane: Kubernetes) -> None:
    started_at = time.monotonic()
    job, pod = running_job(plane, "counted")
    requests = "trainyard_gateway_api_requests_total"
    until(
        lambda: gateway.metric(requests, verb="list", resource="trainingjobs", code="none") >= 1
    )  # the API server is unreachable
    lost = len(proxy.requests)
    proxy.down = False
    gateway.wait_until_ready()
    path = progress_path(job.namespace, job.name)
    conflict = Fault(action=Action.CONFLICT, at=lambda request: request.method == "PATCH")
    proxy.faults.append(conflict)
    assert gateway.report(job, pod, 1, 10).code == 200
    assert gateway.post(kubeflow_path(job.namespace, job.name), {"trainerStatus": {}}, pod.token).code == 200
    for body in (b"{", {"sequence": 1}):
        assert gateway.post(path, body, pod.token).code >= 400
    assert gateway.post(path, {}, None).code == 401
    until(lambda: gateway.metric("trainyard_gateway_status_writes_total", outcome="written"))
    counted = {
        ("trainyard", "Accepted"): 1, ("kubeflow", "Accepted"): 1, ("trainyard", "InvalidJson"): 1,
        ("trainyard", "InvalidBody"): 1, ("trainyard", "TokenMissing"): 1,
    }  # fmt: skip
    reports = "trainyard_gateway_reports_total"
    assert {key: gateway.metric(reports, body=key[0], result=key[1]) for key in counted} == counted
    assert gateway.metric("trainyard_gateway_status_writes_total", outcome="retry") == conflict.done == 1
    assert gateway.metric("trainyard_gateway_jobs") == sum(phases(plane).values())
    assert 0 <= gateway.metric("trainyard_gateway_watch_silence_seconds") < time.monotonic() - started_at
    assert gateway.metric("process_resident_memory_bytes") > 10e6
    until(lambda: requests_in_metrics(gateway) == requests_at_proxy(proxy.requests[lost:]))
    assert gateway.metric(requests, verb="patch", resource="trainingjobs/status", code="409") == 1
    waiting = "trainyard_gateway_activator_requests_waiting"  # has samples while requests wait only
    assert metric_names(gateway.plain("/metrics")[1]) | {waiting} == documented("trainyard_gateway_")


def requests_in_metrics(gateway: Gateway) -> Counter[tuple[str, str]]:
    """Return the answered requests by verb and resource, from the metrics."""
    families = text_string_to_metric_families(gateway.plain("/metrics")[1])
    samples = [one for each in families for one in each.samples if one.name == "trainyard_gateway_api_requests_total"]
    counts: Counter[tuple[str, str]] = Counter()
    for one in (one for one in samples if one.labels["code"] != "none"):
        counts[one.labels["verb"], one.labels["resource"]] += int(one.value)
    return counts


def requests_at_proxy(requests: list[Request]) -> Counter[tuple[str, str]]:
    """Return the requests by verb and resource, as recorded by the proxy."""
    verbs = {"GET": "list", "POST": "create", "PATCH": "patch"}
    return Counter(("watch" if each.watch else verbs[each.method], each.resource) for each in requests)


def test_idle_connections_neither_exhaust_memory_nor_block_reports(
    gateway: Gateway, proxy: Proxy, plane: Kubernetes
) -> None:
    job, pod = running_job(plane, "connected")
    proxy.down = False
    gateway.wait_until_ready()
    with ExitStack() as idle:
        for _ in range(INTAKE_LIMIT + 50):
            idle.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 10))
        until(lambda: gateway.metric("trainyard_gateway_connections_refused_total") == 50)
        assert gateway.metric("process_resident_memory_bytes") < MEMORY
    until(lambda: gateway.report(job, pod, 1, 10).code == 200)
