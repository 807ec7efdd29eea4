"""The operator behind a proxy that breaks its requests; `make campaign-operator` runs every position."""

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

pytestmark = pytest.mark.api
SEED = int(os.environ.get("TRAINYARD_SEED") or random.randrange(10**6))
"""Which positions the sample takes; the campaign takes all of them."""
OUTAGE = float(os.environ.get("TRAINYARD_OUTAGE_SECONDS", "7"))
"""Within the operator's patience with its Lease (10 s); after that it ends, and the test starts it again."""
IDLE_JOBS = int(os.environ.get("TRAINYARD_IDLE_JOBS", "200"))
LIVES = [name for name in SCENARIOS if name != "delete"]
"""Deletion waits half a minute for the garbage collector of a new control plane: the campaign has it."""


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
    """What was asked for beside watches, the Lease and the lists of the resync."""
    wanted = [each for each in requests if not each.watch and each.resource != "leases" and not each.is_list_of_all]
    return [f"{each.label} of {each.namespace}/{each.name}" for each in wanted]


@pytest.mark.parametrize(("kind", "size", "at_once"), [(kills, 8, 1), (answers, 12, 4), (events, 8, 4)])
def test_a_fault_at_any_point_changes_nothing_in_the_end(on: Bench, kind: Any, size: int, at_once: int) -> None:
    cases = [case for scenario in LIVES for case in kind(on, scenario)]
    outcomes = run(random.Random(SEED).sample(cases, size), at_once)
    problems = [f"{outcome.what}: {outcome.problems}" for outcome in outcomes if outcome.problems]
    assert problems == [], f"again with TRAINYARD_SEED={SEED}"
    assert sum(outcome.reached for outcome in outcomes) >= size // 2


def test_an_outage_of_the_api_server_changes_nothing(on: Bench, team: Team) -> None:
    reference = on.reference("succeed")
    job = team.create("life")
    pod = job.run()
    on.proxy.down = True
    try:
        job.finish(pod)
        began, first = time.monotonic(), len(on.proxy.requests)
        while time.monotonic() < began + OUTAGE:
            time.sleep(1)
            on.operator.revive()
        tried = len(on.proxy.requests) - first
        assert tried <= 20 * (time.monotonic() - began)
    finally:
        on.proxy.down = False
    on.operator.revive()
    job.wait("Succeeded")
    until(lambda: final_state(team) == reference.state)


@pytest.mark.parametrize(
    "kinds", [("trainingjobs", "jobs", "pods"), ("trainingjobs",), ("jobs",), ("pods",)], ids="+".join
)
def test_a_stale_api_server_makes_no_second_job(on: Bench, team: Team, kinds: tuple[str, ...]) -> None:
    """A new process reads lists from before the job went on, and no events; kinds need not be late together."""
    job = team.create("life", suspend=True)
    job.wait("Suspended")
    on.operator.crash()
    on.operator.wait_for_leadership()
    on.proxy.keep_lists()
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


def test_a_namespace_whose_job_a_refused_write_shows_to_be_gone_loses_the_certificate(on: Bench, team: Team) -> None:
    job = team.create("gone")
    job.run()
    until(lambda: "trainyard-ca" in team.names("configmaps"))
    on.proxy.keep_lists()
    on.proxy.stale = frozenset({"trainingjobs"})  # neither watch nor list tells of the deletion
    try:
        job.delete()
        until(lambda: not team.names("jobs", "batch/v1"))
        until(lambda: "trainyard-ca" not in team.names("configmaps"))
    finally:
        on.proxy.stale = frozenset()


def test_watches_that_are_closed_at_once_are_not_reopened_at_once(on: Bench) -> None:
    on.proxy.closes_watches = True
    try:
        on.operator.kill()
        began, first = time.monotonic(), len(on.proxy.requests)
        on.operator.start()
        kinds = ("trainingjobs", "jobs", "pods")
        until(lambda: all(moments(on, first, kind)[5:] for kind in kinds))
    finally:
        on.proxy.closes_watches = False
    for kind in kinds:
        for number, at in enumerate(moments(on, first, kind)):
            assert number <= at - began + 1, "one a second, at most"


def moments(on: Bench, first: int, kind: str) -> list[float]:
    """When watches of a kind were opened, from a request on."""
    return [each.at for each in on.proxy.requests[first:] if each.watch and each.resource == kind]


def test_another_trainer_image_is_for_new_jobs_only(on: Bench, team: Team) -> None:
    running, suspended, waiting = team.create("running"), team.create("suspended"), team.create("waiting")
    pod = running.run()
    paused = suspended.run()
    suspended.patch(suspend=True)
    paused.wait_for_deletion()
    paused.end(75)
    suspended.wait("Suspended")
    waiting.wait("Starting")
    on.calm(team.namespace)
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


def test_idle_jobs_cost_no_request(on: Bench, team: Team) -> None:
    active = [team.create(f"active-{number}") for number in range(10)]
    idle = [team.create(f"idle-{number}", suspend=True) for number in range(IDLE_JOBS - len(active))]
    for job in active:
        job.run()
    settled = {"Suspended": len(idle), "Running": len(active)}
    until(lambda: Counter(event_reasons(team)).items() >= settled.items())  # an Event is the last of a transition
    on.calm(team.namespace, 2)
    first = len(on.proxy.requests)
    for job in (*active, *idle):
        job.client.patch(job.path, {"metadata": {"annotations": {"example.com/touched": "yes"}}})
    on.wait_for_lists(len(on.proxy.requests))
    # Namespaces of earlier tests are still being deleted; what becomes of the jobs in them is work.
    assert work([each for each in on.proxy.requests[first:] if each.namespace in ("", team.namespace)]) == []


def test_a_paused_leader_writes_nothing_after_its_successor(on: Bench, plane: Kubernetes, team: Team) -> None:
    """SIGSTOP is the worst partition: the old leader wakes with work in its queue and an old idea of the Lease."""
    job, idle = team.create("handed-over"), [team.create(f"awaited-{number}", suspend=True) for number in range(10)]
    pod = job.run()
    start = len(plane.audit())
    folder = on.operator.log_file.parent
    with Proxy(plane.cluster.server, plane.cluster.ca, folder / "second", name="second") as proxy:
        second = OperatorProcess(proxy.kubeconfig(service_account(plane, folder)), folder, "two")
        try:
            on.operator.signal(signal.SIGSTOP)
            job.patch(suspend=True)  # work that wakes the old leader up
            second.wait_for_leadership()
            pod.wait_for_deletion()
            pod.end(75)
            job.wait("Suspended")
            for each in idle:  # both see these at the same time
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


def test_a_leader_that_is_cut_off_ends_before_its_successor_writes(on: Bench, plane: Kubernetes, team: Team) -> None:
    on.operator.wait_for_leadership()
    job = team.create("cut-off")
    pod = job.run()
    folder = on.operator.log_file.parent
    with Proxy(plane.cluster.server, plane.cluster.ca, folder / "third", name="third") as proxy:
        second = OperatorProcess(proxy.kubeconfig(service_account(plane, folder)), folder, "three")
        try:
            on.operator.leave()
            on.proxy.down = True
            start = len(plane.audit())
            job.finish(pod)
            second.wait_for_leadership()
            on.proxy.down = False  # one that still led could write now
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
    """User agents of the operators' writes, in order, the Lease excepted."""
    return [
        str(entry.get("userAgent"))
        for entry in plane.audit(start)
        if entry["user"]["username"].endswith(":trainyard-operator")
        and entry["stage"] == "ResponseComplete"
        and entry["verb"] not in ("get", "list", "watch")
        and entry["objectRef"]["resource"] != "leases"
    ]
