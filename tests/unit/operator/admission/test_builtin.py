"""The builtin admission controller: decisions while jobs, pods and nodes change."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from tests.queueing.queue_fixture import QueueFixture
from tests.unit.operator.queue.state_model import GPU, NOW, quota
from tests.unit.operator.trainingjob.state_model import observed_of
from trainyard_crds.constants import ENQUEUED_ANNOTATION
from trainyard_operator.queue.elastic import ElasticPool
from trainyard_operator.queue.inventory import Holder
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Node
from trainyard_operator.queue.position import PUBLISH_RATE
from trainyard_operator.queue.quota import quota_of
from trainyard_operator.trainingjob.queue_adapter import seconds_run
from trainyard_operator.trainingjob.resources import job_key


def test_fitting_job_is_admitted_with_placement_and_queue_time() -> None:
    queue = QueueFixture(2)
    queue.submit("a")
    assert not queue.decision("a").decided, "no decision before the first cycle"
    queue.cycle()
    found = queue.decision("a")
    assert found.admitted
    assert found.nodes == ("n0",)
    assert found.queue == {"pool": GPU, "enqueuedAt": "2026-01-02T10:00:00.000000Z"}
    assert queue.added == ["a"]


def test_waiting_job_has_position_and_reason_until_it_fits() -> None:
    queue = QueueFixture(1)
    for name in ("a", "b", "c"):
        queue.submit(name)
    queue.cycle()
    queue.start("a")
    found = queue.decision("b")
    assert not found.admitted
    assert (found.reason, found.message) == ("WaitingForGpus", "It needs 1 GPU on one node; the most free is 0.")
    assert found.queue is not None
    assert (found.queue["position"], found.queue["length"]) == (1, 2)
    assert queue.decision("c").reason == "WaitingForTurn"
    queue.end("a")
    queue.cycle(20)
    assert queue.decision("b").admitted
    found = queue.decision("c")
    assert found.queue is not None
    assert found.queue["position"] == 1


def test_position_is_not_published_twice_within_ten_seconds() -> None:
    queue = QueueFixture(1)
    for name in ("a", "b", "c"):
        queue.submit(name)
    queue.cycle()
    queue.start("a")
    queue.end("a")
    queue.added.clear()
    queue.cycle(5)
    assert queue.added == ["b"], "c moved up, but its position was published 5 seconds ago"
    queue.cycle(6)
    assert queue.added == ["b", "c"]


def test_late_status_write_has_the_latest_position() -> None:
    queue = QueueFixture(1)
    for name in ("a", "b", "c", "d"):
        queue.submit(name)
    queue.cycle()
    queue.start("a")
    queue.write("c")
    queue.end("a")
    queue.cycle(5)
    places = {name: (queue.decision(name).queue or {})["position"] for name in ("c", "d")}
    assert places == {"c": 2, "d": 2}, "c was written five seconds ago and stays; d is written now"


def test_new_operator_does_not_repeat_published_positions() -> None:
    queue = QueueFixture(1)
    for number in range(200):
        queue.submit(f"j{number:03}")
    queue.cycle()
    queue.start("j000")
    for number in range(1, 200):
        queue.write(f"j{number:03}")
    queue.restart()
    queue.bind("j000")
    queue.added.clear()
    queue.cycle()
    assert queue.added == []
    queue.end("j000")
    queue.cycle()
    assert queue.decision("j001").admitted
    assert len(queue.added) == 1 + PUBLISH_RATE


def test_grant_without_a_job_holds_its_gpus_once() -> None:
    queue = QueueFixture(2)
    queue.submit("a")
    queue.cycle()
    queue.submit("b")
    queue.submit("c")
    queue.cycle()
    assert queue.decision("b").admitted
    assert not queue.decision("c").admitted
    queue.start("a")
    queue.cycle(60)
    assert not queue.decision("c").admitted


def test_gpus_of_a_succeeded_pod_are_free_before_the_job_is_complete() -> None:
    queue = QueueFixture(gpus=1)
    queue.submit("a")
    queue.cycle()
    queue.start("a")
    queue.submit("b")
    queue.cycle()
    assert queue.decision("b").reason == "WaitingForGpus"
    before = queue.jobs[job_key("team", "a")]
    queue.put("a", replace(before, pods=({"metadata": {}, "status": {"phase": "Succeeded"}},)))
    queue.controller.inventory.put_pod("a", None)
    queue.cycle()
    assert queue.decision("b").admitted


def test_gpus_of_a_failed_pod_are_kept_for_its_replacement() -> None:
    queue = QueueFixture(gpus=1)
    queue.submit("a")
    queue.cycle()
    queue.start("a")
    before = queue.jobs[job_key("team", "a")]
    queue.put("a", replace(before, pods=({"metadata": {}, "status": {"phase": "Failed"}},)))
    queue.controller.inventory.put_pod("a", None)
    queue.submit("b")
    queue.cycle()
    assert not queue.decision("b").admitted


def test_grant_is_pending_until_its_job_exists() -> None:
    queue, a, b = QueueFixture(gpus=1), job_key("team", "a"), job_key("team", "b")
    queue.submit("a")
    queue.submit("b")
    assert not queue.controller.is_admitted_pending(a)
    queue.cycle()
    assert (queue.controller.is_admitted_pending(a), queue.controller.is_waiting(a)) == (True, False)
    assert (queue.controller.is_admitted_pending(b), queue.controller.is_waiting(b)) == (False, True)
    queue.start("a")
    queue.cycle()
    assert not queue.controller.is_admitted_pending(a)


def test_suspended_job_releases_gpus_with_its_pod_and_keeps_its_position() -> None:
    queue = QueueFixture(1)
    queue.submit("a")
    queue.cycle()
    queue.start("a")
    queue.submit("b")
    suspended = {"metadata": {}, "spec": {"suspend": True}, "status": {"terminating": 1}}
    queue.change("a", spec={"suspend": True}, child=suspended)
    queue.cycle(1)
    assert not queue.decision("b").admitted, "the pod of a is still saving"
    queue.change("a", child={**suspended, "status": {}}, spec={"suspend": False})
    queue.controller.inventory.put_pod("a", None)
    queue.cycle(20)
    assert queue.decision("a").admitted, "it was enqueued first"
    assert not queue.decision("b").admitted


def test_higher_priority_preempts_lower_if_the_policy_allows() -> None:
    queue = QueueFixture(1, Policy(preemption=True))
    queue.submit("low", priority=1)
    queue.cycle()
    queue.start("low")
    queue.submit("high", priority=9)
    queue.cycle(1)
    low = queue.decision("low")
    assert low.preempted
    assert not low.admitted
    assert queue.decision("high").reason == "WaitingForPreempted"
    queue.change("low", child={"metadata": {}, "spec": {"suspend": True}, "status": {}})
    queue.controller.inventory.put_pod("low", None)
    queue.cycle(20)
    assert queue.decision("high").admitted
    found = queue.decision("low")
    assert not found.preempted
    assert found.reason == "WaitingForGpus"


def test_new_operator_does_not_resume_a_preempted_job() -> None:
    queue = QueueFixture(1, Policy(preemption=True))
    queue.submit("low", priority=1)
    queue.submit("high", priority=9)
    made = {"creationTimestamp": "2026-01-02T09:00:00Z"}
    suspended = {"metadata": made, "spec": {"suspend": True}, "status": {"terminating": 1}}
    queue.change("low", child=suspended)
    queue.restart()
    queue.bind("low")
    assert not queue.decision("low").decided
    queue.cycle()
    low = queue.decision("low")
    assert (low.admitted, low.decided) == (False, False), "its pod is still saving"
    assert queue.decision("high").reason == "WaitingForPreempted"
    queue.change("low", child={**suspended, "status": {}})
    queue.controller.inventory.put_pod("low", None)
    assert not queue.decision("low").admitted, "no cycle has run since"
    queue.cycle(20)
    assert queue.decision("high").admitted
    assert queue.decision("low").reason == "WaitingForGpus"


def test_job_resumed_while_it_saves_is_queued_again() -> None:
    queue = QueueFixture(1)
    queue.submit("a", priority=1)
    queue.cycle()
    queue.start("a")
    queue.cycle()
    queue.submit("b", priority=9)
    queue.cycle()
    queue.change(
        "a",
        child={
            "metadata": {"creationTimestamp": "2026-01-02T10:00:00Z"},
            "spec": {"suspend": True},
            "status": {"active": 1},
        },
    )
    assert not queue.decision("a").admitted, "also before the next cycle"
    queue.cycle(1)
    assert not queue.decision("a").admitted
    queue.change("a", child={"metadata": {}, "spec": {"suspend": True}, "status": {}})
    queue.controller.inventory.put_pod("a", None)
    queue.cycle(20)
    assert queue.decision("b").admitted, "a lost its admission"
    assert not queue.decision("a").admitted
    queue.change("b", spec={"stop": "Graceful"})
    queue.cycle(20)
    assert queue.decision("a").admitted
    assert queue.decision("a").decided


def test_changed_priority_moves_a_waiting_job() -> None:
    queue = QueueFixture(1)
    for name in ("a", "b", "c"):
        queue.submit(name)
    queue.cycle()
    queue.start("a")
    queue.change("c", spec={"queue": {"priority": 9}})
    queue.end("a")
    queue.cycle(1)
    assert queue.decision("c").admitted
    assert not queue.decision("b").admitted


def test_restart_keeps_positions_and_gpus() -> None:
    queue = QueueFixture(1)
    for name in ("a", "b", "c"):
        queue.submit(name)
    queue.cycle()
    queue.start("a")
    for name in ("b", "c"):
        queue.change(name, status={"phase": "Queued", "queue": queue.decision(name).queue})
    stamps = {name: queue.decision(name).queue["enqueuedAt"] for name in ("b", "c")}  # type: ignore[index]
    queue.jobs = dict(reversed(queue.jobs.items()))
    queue.restart()
    queue.controller.inventory.put_pod("a", Holder("a", "a", "n0", {GPU: 1}, "team/a"))
    queue.cycle()
    assert queue.decision("a").admitted
    assert {name: queue.decision(name).queue["enqueuedAt"] for name in ("b", "c")} == stamps  # type: ignore[index]
    assert queue.decision("b").queue["position"] == 1  # type: ignore[index]


def test_admitted_job_keeps_its_queue_time_if_killed_before_the_status() -> None:
    queue = QueueFixture(2)
    queue.submit("a")
    queue.submit("b")
    queue.cycle()
    stamps = {name: (queue.decision(name).queue or {})["enqueuedAt"] for name in ("a", "b")}
    assert stamps["a"] < stamps["b"]
    for name in ("a", "b"):
        queue.start(name)
        child = queue.jobs[job_key("team", name)].child or {}
        annotations = {"annotations": {ENQUEUED_ANNOTATION: stamps[name]}}
        queue.change(name, child={**child, "metadata": child["metadata"] | annotations})
    queue.change("b", status={"phase": "Running", "queue": {"enqueuedAt": stamps["b"]}})
    queue.restart()
    for name in ("a", "b"):
        queue.controller.inventory.put_pod(name, Holder(name, name, "n0", {GPU: 1}, f"team/{name}"))
    queue.cycle()
    assert {name: (queue.decision(name).queue or {})["enqueuedAt"] for name in ("a", "b")} == stamps


def test_job_that_ends_before_its_first_status_keeps_its_queue_time() -> None:
    queue = QueueFixture(1)
    queue.submit("a")
    queue.cycle()
    stamp = queue.decision("a").queue
    queue.end("a")
    queue.cycle()
    assert queue.decision("a").queue == stamp
    assert stamp is not None
    assert set(stamp) == {"pool", "enqueuedAt"}


def test_durations_of_earlier_runs_give_estimates() -> None:
    queue = QueueFixture(1)
    queue.submit("first")
    queue.cycle()
    queue.start("first")
    queue.cycle()
    queue.submit("a")
    queue.submit("b")
    queue.seconds = 100
    queue.end("first")
    queue.cycle()
    queue.start("a")
    queue.cycle(20)
    found = queue.decision("b").queue
    assert found is not None
    assert found["estimateBasis"] == "history"
    assert found["estimatedStartTime"] == "2026-01-02T10:03:20Z", (
        "a started at 100 s and is expected to run as long as the first"
    )


def test_job_in_backoff_lets_others_pass_also_after_a_restart() -> None:
    queue = QueueFixture(1)
    for name in ("a", "b"):
        queue.submit(name)
    failed = {"count": 1, "seconds": 300, "message": "No node.", "notBefore": "2026-01-02T10:01:00Z"}
    queue.change("a", status={"queue": {"enqueuedAt": "2026-01-02T10:00:00.000000Z", "failedStarts": failed}})
    queue.restart()
    queue.cycle()
    found = queue.decision("a")
    assert (found.reason, found.message) == (
        "BackingOff",
        "No node. It keeps its place and is tried again at 10:01:00 UTC.",
    )
    assert found.queue is not None
    assert found.queue["position"] == 1
    assert queue.decision("b").admitted
    queue.change("b", spec={"stop": "Graceful"})
    queue.cycle(59)
    assert not queue.decision("a").admitted
    queue.cycle(1)
    assert queue.decision("a").admitted


def test_job_waits_for_headroom_of_its_quota() -> None:
    queue = QueueFixture(4)
    queue.controller.quotas.put("q", quota_of(quota({f"requests.{GPU}": "2"}, {f"requests.{GPU}": "2"})))
    queue.submit("a", 2)
    queue.cycle()
    found = queue.decision("a")
    assert (found.reason, found.message) == (
        "QuotaExceeded",
        "Namespace team may use 2 nvidia.com/gpu (ResourceQuota gpus) and uses 2; this job needs 2.",
    )
    queue.controller.quotas.put("q", quota_of(quota({f"requests.{GPU}": "3"}, {f"requests.{GPU}": "1"})))
    queue.submit("b", 2)
    queue.cycle(20)
    found = queue.decision("a")
    assert found.admitted
    assert found.quota == "", "its Job does not exist yet"
    assert queue.decision("b").reason == "QuotaExceeded", "the quota's status does not include a yet"


def test_admitted_job_names_the_quota_that_refuses_its_pod() -> None:
    queue = QueueFixture(4)
    queue.submit("a", 2)
    queue.cycle()
    queue.change("a", child={"metadata": {"creationTimestamp": "2026-01-02T10:00:00Z"}, "spec": {}, "status": {}})
    queue.controller.quotas.put("q", quota_of(quota({"pods": "1"}, {"pods": "1"})))
    queue.cycle()
    found = queue.decision("a")
    assert found.admitted
    assert found.quota == "Namespace team may use 1 pods (ResourceQuota gpus) and uses 1; this job needs 1."


def test_grant_expires_if_its_job_cannot_be_created() -> None:
    queue = QueueFixture(1)
    queue.submit("a")
    queue.cycle()
    queue.submit("b")
    queue.cycle()
    assert not queue.decision("b").admitted
    failed = {"count": 1, "seconds": 300, "message": "Refused.", "notBefore": "2026-01-02T10:06:00Z"}
    queue.change("a", status={"queue": {"failedStarts": failed}})
    queue.cycle(300)
    assert queue.decision("b").admitted
    assert queue.decision("a").reason == "BackingOff"
    queue.change("b", spec={"stop": "Graceful"})
    queue.cycle(60)
    assert queue.decision("a").admitted, "its backoff is over, and its Job does not exist yet"
    queue.change("a")
    queue.cycle(1)
    assert queue.decision("a").admitted


def test_start_timeout_follows_the_policy_and_needs_gpus() -> None:
    queue = QueueFixture(1, Policy(start_seconds=7))
    queue.submit("a")
    queue.submit("cpu", 0)
    queue.cycle()
    assert (queue.decision("a").start_seconds, queue.decision("cpu").start_seconds) == (7, None)
    queue.added.clear()
    queue.policy = Policy(start_seconds=9)
    queue.cycle()
    assert queue.decision("a").start_seconds == 9
    assert "a" in queue.added, "its deadline changed"


def test_nonblocking_job_does_not_delay_estimates() -> None:
    queue = QueueFixture(2)
    queue.submit("r", 2)
    queue.cycle()
    queue.start("r", 2)
    queue.change("r", status={"progress": {"remainingSeconds": 100, "updatedAt": NOW.isoformat()}})
    queue.submit("late", 2)
    failed = {"count": 9, "seconds": 1, "message": "No node.", "notBefore": "2026-01-02T11:00:00Z"}
    queue.change("late", status={"queue": {"failedStarts": failed}})
    queue.submit("next", 2)
    queue.cycle()
    late, found = queue.decision("late").queue, queue.decision("next").queue
    assert late is not None
    assert found is not None
    assert "estimatedStartTime" not in late
    assert found["estimatedStartTime"] == "2026-01-02T10:01:40Z"


def test_job_that_exceeds_capacity_has_no_position() -> None:
    queue = QueueFixture(1)
    queue.submit("a", 2)
    queue.cycle()
    found = queue.decision("a")
    assert found.reason == "ExceedsCapacity"
    assert found.queue is not None
    assert "position" not in found.queue


def test_stop_and_deletion_leave_the_queue() -> None:
    queue = QueueFixture(1)
    for name in ("a", "b", "c", "d"):
        queue.submit(name)
    queue.cycle()
    queue.start("a")
    queue.change("b", spec={"stop": "Graceful"})
    del queue.jobs[job_key("team", "c")]
    queue.controller.mark_dirty(job_key("team", "c"))
    queue.cycle(20)
    found = queue.decision("d").queue
    assert found is not None
    assert (found["position"], found["length"]) == (1, 1)
    assert [row["name"] for row in queue.controller.describe()["waiting"]] == ["d"]


def ran(uid: str, started: int, finished: int | None = None) -> dict[str, Any]:
    """A pod whose container runs, or ran."""
    times = {"startedAt": f"2026-01-02T10:00:{started:02}Z"}
    if finished is not None:
        times["finishedAt"] = f"2026-01-02T10:00:{finished:02}Z"
    state = {"running" if finished is None else "terminated": times}
    return {"metadata": {"uid": uid}, "status": {"containerStatuses": [{"name": "trainer", "state": state}]}}


def test_run_time_comes_from_the_pods() -> None:
    job: dict[str, Any] = {"metadata": {}, "spec": {}, "status": {}}
    now = NOW + dt.timedelta(seconds=50)
    assert seconds_run(observed_of(job), now) == 0
    assert seconds_run(observed_of(job, pods=(ran("a", 10),)), now) == 40
    assert seconds_run(observed_of(job, pods=(ran("a", 10, 13),)), now) == 3
    again = {**job, "status": {"attempts": [{"podUID": "b"}], "attemptCounts": {"runningSeconds": 3}}}
    assert seconds_run(observed_of(again, pods=(ran("a", 10, 13), ran("b", 20, 25))), now) == 8
    recorded = {
        **job,
        "status": {"attempts": [{"podUID": "b", "finishedAt": "x"}], "attemptCounts": {"runningSeconds": 8}},
    }
    assert seconds_run(observed_of(recorded, pods=(ran("b", 20, 25),)), now) == 8


def test_job_on_a_future_node_waits_for_the_autoscaler_also_after_a_restart() -> None:
    elastic = ElasticPool(name="more", gpu_resource=GPU, max_nodes=3, gpus_per_node=2, start_seconds=900)
    queue = QueueFixture(1, Policy(elastic_pools=(elastic,)))
    queue.submit("large", 2)
    queue.submit("small", 1)
    queue.cycle()
    stamp = NOW.isoformat()
    for is_restarted in (False, True):
        if is_restarted:
            job = {"metadata": {"creationTimestamp": stamp}, "spec": {"suspend": False}, "status": {}}
            queue.change("large", child=job)
            queue.start("small")
            queue.restart()
            queue.bind("small")
            queue.cycle()
        found = queue.decision("large")
        assert (found.nodes, found.start_seconds, found.elastic) == ((), 900, True)
        assert found.growth == (
            "The nodes have no room; its pods wait for the autoscaler to add one: more (1 of at most 3 nodes)."
        )
    queue.controller.inventory.put_node(Node(name="new", allocatable={GPU: 2}))
    assert queue.decision("large").growth == "", "the scheduler places it now"
    assert queue.decision("large").start_seconds == 900
