"""The operator behind a proxy that injects faults; `make campaign-operator` covers every position."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import Team, TrainingJob, service_account
from tests.faults.bench import Bench, bench, prepared
from tests.faults.campaign import RESYNC, answers, events, kills, run
from tests.faults.plan import Request
from tests.faults.process import OperatorProcess
from tests.faults.proxy import Proxy
from tests.faults.scenarios import SCENARIOS, event_reasons, final_state
from trainyard_operator.stored_resources import SPECS

pytestmark = pytest.mark.api
SEED = int(os.environ.get("TRAINYARD_SEED") or random.randrange(10**6))
"""Seed of the sample of positions; the campaign covers all of them."""
OUTAGE = float(os.environ.get("TRAINYARD_OUTAGE_SECONDS", "7"))
"""Shorter than the renew deadline of the Lease (10 s), after which the operator exits and the test restarts it."""
IDLE_JOBS = int(os.environ.get("TRAINYARD_IDLE_JOBS", "200"))
SAMPLED_SCENARIOS = [name for name in SCENARIOS if name != "delete"]
"""Deletion waits half a minute for the garbage collector of a new control plane, so only the campaign covers it."""


@pytest.fixture(scope="module")
def plane() -> Iterator[Kubernetes]:
    with prepared(f"test-faults-{os.getpid()}") as kubernetes:
        yield kubernetes


@pytest.fixture(scope="module")
def on(plane: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(plane, tmp_path_factory.mktemp("bench"), RESYNC) as made:
        yield made


@pytest.fixture
def team(on: Bench) -> Iterator[Team]:
    with on.team() as made:
        yield made


def work(requests: list[Request]) -> list[str]:
    """Return the requests without watches, the Lease and the lists of a resync."""
    selected = [each for each in requests if not each.watch and each.resource != "leases" and not each.is_list_of_all]
    return [f"{each.label} of {each.namespace}/{each.name}" for each in selected]


@pytest.mark.parametrize(("kind", "size", "concurrent"), [(kills, 8, 1), (answers, 12, 4), (events, 8, 4)])
def test_fault_does_not_change_the_final_state(on: Bench, kind: Any, size: int, concurrent: int) -> None:
    cases = [case for scenario in SAMPLED_SCENARIOS for case in kind(on, scenario)]
    outcomes = run(random.Random(SEED).sample(cases, size), concurrent)
    problems = [f"{outcome.what}: {outcome.problems}" for outcome in outcomes if outcome.problems]
    assert problems == [], f"repeat with TRAINYARD_SEED={SEED}"
    assert sum(outcome.reached for outcome in outcomes) >= size // 2


WATCHED = (*SPECS, "nodes", "pods", "resourcequotas", "endpointslices")
"""What the operator watches. After a lost connection each watch tries again on its own, at most 4 times in a second."""


def test_api_server_outage_does_not_change_the_final_state(on: Bench, team: Team) -> None:
    reference = on.reference("succeed")
    job = team.create("life")
    pod = job.run()
    on.proxy.down = True
    try:
        job.finish(pod)
        started_at, first = time.monotonic(), len(on.proxy.requests)
        while time.monotonic() < started_at + OUTAGE:
            time.sleep(1)
            on.operator.restart_if_ended()
        assert on.proxy.busiest_second(first) <= 4 * len(WATCHED)
    finally:
        on.proxy.down = False
    on.operator.restart_if_ended()
    job.wait("Succeeded")
    until(lambda: final_state(team) == reference.state)


@pytest.mark.parametrize(
    "kinds", [("trainingjobs", "jobs", "pods"), ("trainingjobs",), ("jobs",), ("pods",)], ids="+".join
)
def test_stale_lists_create_no_second_job(on: Bench, team: Team, kinds: tuple[str, ...]) -> None:
    """A new process reads lists from before the job was resumed, and no events; not all kinds must be stale."""
    job = team.create("life", suspend=True)
    job.wait("Suspended")
    on.operator.crash()
    on.operator.wait_for_leadership()
    on.proxy.save_lists()
    job.patch(suspend=False)
    pod = job.run()
    on.proxy.stale = frozenset(kinds)
    try:
        first = len(on.proxy.requests)
        on.operator.crash()
        on.wait_for_lists(first, times=3)
        assert [entry["metadata"].get("deletionTimestamp") for entry in job.pods()] == [None]
        child = job.child()["metadata"]["uid"]
    finally:
        on.proxy.stale = frozenset()
    job.finish(pod)
    job.wait("Succeeded")
    assert (job.child()["metadata"]["uid"], len(job.pods())) == (child, 1)
    assert [entry["pod"] for entry in job.status()["attempts"]] == [pod.name]


def test_certificate_is_removed_after_a_write_to_a_deleted_job_is_refused(on: Bench, team: Team) -> None:
    job = team.create("gone")
    job.run()
    until(lambda: "trainyard-ca" in team.names("configmaps"))
    on.proxy.save_lists()
    on.proxy.stale = frozenset({"trainingjobs"})  # neither watch nor list shows the deletion
    try:
        job.delete()
        until(lambda: not team.names("jobs", "batch/v1"))
        until(lambda: "trainyard-ca" not in team.names("configmaps"))
    finally:
        on.proxy.stale = frozenset()


def test_closed_watches_are_reopened_with_backoff(on: Bench) -> None:
    on.proxy.closes_watches = True
    try:
        on.operator.kill()
        started_at, first = time.monotonic(), len(on.proxy.requests)
        on.operator.start()
        kinds = ("trainingjobs", "jobs", "pods")
        until(lambda: all(watch_times(on, first, kind)[5:] for kind in kinds))
    finally:
        on.proxy.closes_watches = False
    for kind in kinds:
        for number, at in enumerate(watch_times(on, first, kind)):
            assert number <= at - started_at + 1, "at most one watch per second"


def watch_times(on: Bench, first: int, kind: str) -> list[float]:
    """Return when watches of a kind were opened, from a request on."""
    return [each.at for each in on.proxy.requests[first:] if each.watch and each.resource == kind]


def test_new_trainer_image_applies_only_to_new_jobs(on: Bench, team: Team) -> None:
    running, suspended, waiting = team.create("running"), team.create("suspended"), team.create("waiting")
    pod = running.run()
    paused = suspended.run()
    suspended.patch(suspend=True)
    paused.wait_for_deletion()
    paused.end(75)
    suspended.wait("Suspended")
    waiting.wait("Starting")
    on.wait_until_idle(team.namespace)
    jobs = (running, suspended, waiting)
    before = [_template(job) for job in jobs]
    first = len(on.proxy.requests)
    on.operator.environment["TRAINYARD_TRAINER_IMAGE"] = "registry.local/trainyard-trainer:newer"
    on.operator.crash()
    on.operator.wait_for_leadership()
    for job in jobs:
        job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    on.wait_for_lists(len(on.proxy.requests))
    assert [_template(job) for job in jobs] == before
    assert on.proxy.writes(team.namespace, first) == []
    suspended.patch(suspend=False)
    suspended.finish(suspended.run())
    suspended.wait("Succeeded")
    assert _template(suspended)[1:] == before[1][1:]
    running.finish(pod)
    running.wait("Succeeded")
    team.create("new").pod()
    assert "newer" in json.dumps(_template_of_only(team, "new"))


def _template(job: TrainingJob) -> tuple[str, str, str]:
    child = job.child()
    metadata = child["metadata"]
    return metadata["resourceVersion"], metadata["uid"], json.dumps(child["spec"]["template"], sort_keys=True)


def _template_of_only(team: Team, name: str) -> Any:
    jobs = team.client.get(f"/apis/batch/v1/namespaces/{team.namespace}/jobs")["items"]
    return [job["spec"]["template"] for job in jobs if job["metadata"]["name"].startswith(f"{name}-")]


def test_idle_jobs_cause_no_requests(on: Bench, team: Team) -> None:
    active = [team.create(f"active-{number}") for number in range(10)]
    idle = [team.create(f"idle-{number}", suspend=True) for number in range(IDLE_JOBS - len(active))]
    for job in active:
        job.run()
    settled = {"Suspended": len(idle), "Running": len(active)}
    until(lambda: Counter(event_reasons(team)).items() >= settled.items())  # the last write
    on.wait_until_idle(team.namespace, 2)
    first = len(on.proxy.requests)
    for job in (*active, *idle):
        job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    on.wait_for_lists(len(on.proxy.requests))
    # Namespaces of earlier tests are still being deleted, which causes requests for their jobs.
    assert work([each for each in on.proxy.requests[first:] if each.namespace in ("", team.namespace)]) == []


def test_paused_leader_writes_nothing_after_its_successor(on: Bench, plane: Kubernetes, team: Team) -> None:
    """After SIGSTOP, the old leader resumes with work in its queue and an outdated view of the Lease."""
    job, idle = team.create("handed-over"), [team.create(f"awaited-{number}", suspend=True) for number in range(10)]
    pod = job.run()
    start = len(plane.audit())
    folder = on.operator.log_file.parent
    with Proxy(plane.cluster.server, plane.cluster.ca, folder / "second", name="second") as proxy:
        second = OperatorProcess(proxy.kubeconfig(service_account(plane, folder)), folder, "two")
        try:
            on.operator.signal(signal.SIGSTOP)
            job.patch(suspend=True)  # work for the old leader after it resumes
            second.wait_for_leadership()
            pod.wait_for_deletion()
            pod.end(75)
            job.wait("Suspended")
            for each in idle:  # both operators receive these events at the same time
                each.patch(suspend=False)
            on.operator.signal(signal.SIGCONT)
            until(lambda: not on.operator.process.is_alive())
            until(lambda: _writers(plane, start).count("second") > 3)
            writers = _writers(plane, start)
            assert second.stop() == 0
        finally:
            second.kill()
            on.operator.crash()
    after = writers[writers.index("second") :]
    assert after == ["second"] * len(after)


def test_partitioned_leader_exits_before_its_successor_writes(on: Bench, plane: Kubernetes, team: Team) -> None:
    on.operator.wait_for_leadership()
    job = team.create("cut-off")
    pod = job.run()
    folder = on.operator.log_file.parent
    with Proxy(plane.cluster.server, plane.cluster.ca, folder / "third", name="third") as proxy:
        second = OperatorProcess(proxy.kubeconfig(service_account(plane, folder)), folder, "three")
        try:
            on.operator.unsupervise()
            on.proxy.down = True
            start = len(plane.audit())
            job.finish(pod)
            second.wait_for_leadership()
            on.proxy.down = False  # an operator that still led could write now
            until(lambda: not on.operator.process.is_alive())
            job.wait("Succeeded")
            writers = _writers(plane, start)
            assert second.stop() == 0
        finally:
            on.proxy.down = False
            second.kill()
            on.operator.crash()
    assert set(writers[writers.index("third") :]) == {"third"}


def _writers(plane: Kubernetes, start: int) -> list[str]:
    """Return the user agents of the operators' writes in order, without writes of the Lease."""
    return [
        str(entry.get("userAgent"))
        for entry in plane.audit(start)
        if entry["user"]["username"].endswith(":trainyard-operator")
        and entry["stage"] == "ResponseComplete"
        and entry["verb"] not in ("get", "list", "watch")
        and entry["objectRef"]["resource"] != "leases"
    ]
