"""The queue at work on one operator's knowledge: jobs, pods and nodes come and go, and each job is answered."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from tests.unit.operator.admission.queue_fixture import Yard
from tests.unit.operator.queue.state_model import GPU, NOW, quota
from tests.unit.operator.trainingjob.state_model import observed_of
from trainyard_crds.constants import ENQUEUED_ANNOTATION
from trainyard_operator.kube.store import Key
from trainyard_operator.queue.inventory import Holder
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.position import TOLD_PER_SECOND
from trainyard_operator.queue.quota import quota_of
from trainyard_operator.trainingjob.queue_adapter import seconds_run


def test_a_job_that_fits_starts_where_the_queue_meant_it_and_keeps_its_stamp() -> None:
    yard = Yard(2)
    yard.submit("a")
    assert not yard.answer("a").decided, "nothing is said before the first round"
    yard.round()
    found = yard.answer("a")
    assert found.admitted
    assert found.nodes == ("n0",)
    assert found.queue == {"pool": GPU, "enqueuedAt": "2026-01-02T10:00:00.000000Z"}
    assert yard.added == ["a"]


def test_who_waits_is_told_place_and_reason_and_starts_when_there_is_room() -> None:
    yard = Yard(1)
    for name in ("a", "b", "c"):
        yard.submit(name)
    yard.round()
    yard.start("a")
    found = yard.answer("b")
    assert not found.admitted
    assert (found.reason, found.message) == ("WaitingForGpus", "It needs 1 GPU on one node; the most free is 0.")
    assert found.queue is not None
    assert (found.queue["position"], found.queue["length"]) == (1, 2)
    assert yard.answer("c").reason == "WaitingForTurn"
    yard.end("a")
    yard.round(20)
    assert yard.answer("b").admitted
    found = yard.answer("c")
    assert found.queue is not None
    assert found.queue["position"] == 1


def test_a_place_is_not_told_anew_within_ten_seconds() -> None:
    yard = Yard(1)
    for name in ("a", "b", "c"):
        yard.submit(name)
    yard.round()
    yard.start("a")
    yard.end("a")
    yard.added.clear()
    yard.round(5)
    assert yard.added == ["b"], "c moved up, but was told 5 seconds ago"
    yard.round(6)
    assert yard.added == ["b", "c"]


def test_what_is_written_late_is_written_as_it_is_by_then() -> None:
    yard = Yard(1)
    for name in ("a", "b", "c", "d"):
        yard.submit(name)
    yard.round()
    yard.start("a")
    yard.write("c")
    yard.end("a")
    yard.round(5)
    places = {name: (yard.answer(name).queue or {})["position"] for name in ("c", "d")}
    assert places == {"c": 2, "d": 2}, "c was written five seconds ago and stays; d is written only now"


def test_a_new_operator_tells_nobody_what_the_one_before_has_told() -> None:
    yard = Yard(1)
    for number in range(200):
        yard.submit(f"j{number:03}")
    yard.round()
    yard.start("j000")
    for number in range(1, 200):
        yard.write(f"j{number:03}")
    yard.restart()
    yard.bind("j000")
    yard.added.clear()
    yard.round()
    assert yard.added == []
    yard.end("j000")
    yard.round()
    assert yard.answer("j001").admitted
    assert len(yard.added) == 1 + TOLD_PER_SECOND


def test_a_job_let_in_but_not_yet_made_is_not_given_away_and_is_not_counted_twice() -> None:
    yard = Yard(2)
    yard.submit("a")
    yard.round()
    yard.submit("b")
    yard.submit("c")
    yard.round()
    assert yard.answer("b").admitted
    assert not yard.answer("c").admitted
    yard.start("a")
    yard.round(60)
    assert not yard.answer("c").admitted


def test_gpus_are_free_when_the_pod_has_ended_well_before_the_job_controller_says_so() -> None:
    yard = Yard(gpus=1)
    yard.submit("a")
    yard.round()
    yard.start("a")
    yard.submit("b")
    yard.round()
    assert yard.answer("b").reason == "WaitingForGpus"
    before = yard.jobs[Key("team", "a")]
    yard.put("a", replace(before, pods=({"metadata": {}, "status": {"phase": "Succeeded"}},)))
    yard.queue.inventory.put_pod("a", None)
    yard.round()
    assert yard.answer("b").admitted


def test_gpus_of_a_pod_that_failed_are_kept_for_the_one_that_follows() -> None:
    yard = Yard(gpus=1)
    yard.submit("a")
    yard.round()
    yard.start("a")
    before = yard.jobs[Key("team", "a")]
    yard.put("a", replace(before, pods=({"metadata": {}, "status": {"phase": "Failed"}},)))
    yard.queue.inventory.put_pod("a", None)
    yard.submit("b")
    yard.round()
    assert not yard.answer("b").admitted


def test_who_was_let_in_is_urgent_until_its_job_is_there() -> None:
    yard, a, b = Yard(gpus=1), Key("team", "a"), Key("team", "b")
    yard.submit("a")
    yard.submit("b")
    assert not yard.queue.is_let_in(a)
    yard.round()
    assert (yard.queue.is_let_in(a), yard.queue.is_waiting(a)) == (True, False)
    assert (yard.queue.is_let_in(b), yard.queue.is_waiting(b)) == (False, True)
    yard.start("a")
    yard.round()
    assert not yard.queue.is_let_in(a)


def test_a_suspended_job_gives_back_its_gpus_when_its_pod_is_gone_and_queues_again_from_its_old_place() -> None:
    yard = Yard(1)
    yard.submit("a")
    yard.round()
    yard.start("a")
    yard.submit("b")
    suspended = {"metadata": {}, "spec": {"suspend": True}, "status": {"terminating": 1}}
    yard.change("a", spec={"suspend": True}, child=suspended)
    yard.round(1)
    assert not yard.answer("b").admitted, "the pod of a still saves"
    yard.change("a", child={**suspended, "status": {}}, spec={"suspend": False})
    yard.queue.inventory.put_pod("a", None)
    yard.round(20)
    assert yard.answer("a").admitted, "it asked first"
    assert not yard.answer("b").admitted


def test_a_job_of_higher_priority_takes_the_gpus_of_a_lower_one_where_that_is_allowed() -> None:
    yard = Yard(1, Policy(preemption=True))
    yard.submit("low", priority=1)
    yard.round()
    yard.start("low")
    yard.submit("high", priority=9)
    yard.round(1)
    low = yard.answer("low")
    assert low.preempted
    assert not low.admitted
    assert yard.answer("high").reason == "WaitingForPreempted"
    yard.change("low", child={"metadata": {}, "spec": {"suspend": True}, "status": {}})
    yard.queue.inventory.put_pod("low", None)
    yard.round(20)
    assert yard.answer("high").admitted
    found = yard.answer("low")
    assert not found.preempted
    assert found.reason == "WaitingForGpus"


def test_a_new_operator_does_not_resume_a_job_that_makes_room() -> None:
    yard = Yard(1, Policy(preemption=True))
    yard.submit("low", priority=1)
    yard.submit("high", priority=9)
    made = {"creationTimestamp": "2026-01-02T09:00:00Z"}
    suspended = {"metadata": made, "spec": {"suspend": True}, "status": {"terminating": 1}}
    yard.change("low", child=suspended)
    yard.restart()
    yard.bind("low")
    assert not yard.answer("low").decided
    yard.round()
    low = yard.answer("low")
    assert (low.admitted, low.decided) == (False, False), "its pod saves still"
    assert yard.answer("high").reason == "WaitingForPreempted"
    yard.change("low", child={**suspended, "status": {}})
    yard.queue.inventory.put_pod("low", None)
    assert not yard.answer("low").admitted, "the queue has not looked yet"
    yard.round(20)
    assert yard.answer("high").admitted
    assert yard.answer("low").reason == "WaitingForGpus"


def test_a_job_that_is_suspended_and_resumed_at_once_goes_through_the_queue_when_its_pod_is_gone() -> None:
    yard = Yard(1)
    yard.submit("a", priority=1)
    yard.round()
    yard.start("a")
    yard.round()
    yard.submit("b", priority=9)
    yard.round()
    yard.change(
        "a",
        child={
            "metadata": {"creationTimestamp": "2026-01-02T10:00:00Z"},
            "spec": {"suspend": True},
            "status": {"active": 1},
        },
    )
    assert not yard.answer("a").admitted, "also before the queue has looked"
    yard.round(1)
    assert not yard.answer("a").admitted
    yard.change("a", child={"metadata": {}, "spec": {"suspend": True}, "status": {}})
    yard.queue.inventory.put_pod("a", None)
    yard.round(20)
    assert yard.answer("b").admitted, "a has given up its turn"
    assert not yard.answer("a").admitted
    yard.change("b", spec={"stop": "Graceful"})
    yard.round(20)
    assert yard.answer("a").admitted
    assert yard.answer("a").decided


def test_a_new_priority_moves_a_waiting_job_at_once() -> None:
    yard = Yard(1)
    for name in ("a", "b", "c"):
        yard.submit(name)
    yard.round()
    yard.start("a")
    yard.change("c", spec={"queue": {"priority": 9}})
    yard.end("a")
    yard.round(1)
    assert yard.answer("c").admitted
    assert not yard.answer("b").admitted


def test_after_a_restart_nobody_loses_place_or_gpus() -> None:
    yard = Yard(1)
    for name in ("a", "b", "c"):
        yard.submit(name)
    yard.round()
    yard.start("a")
    for name in ("b", "c"):
        yard.change(name, status={"phase": "Queued", "queue": yard.answer(name).queue})
    stamps = {name: yard.answer(name).queue["enqueuedAt"] for name in ("b", "c")}  # type: ignore[index]
    yard.jobs = dict(reversed(yard.jobs.items()))
    yard.restart()
    yard.queue.inventory.put_pod("a", Holder("a", "a", "n0", {GPU: 1}, "team/a"))
    yard.round()
    assert yard.answer("a").admitted
    assert {name: yard.answer(name).queue["enqueuedAt"] for name in ("b", "c")} == stamps  # type: ignore[index]
    assert yard.answer("b").queue["position"] == 1  # type: ignore[index]


def test_a_job_that_was_let_in_keeps_its_stamp_though_a_kill_came_before_its_status() -> None:
    yard = Yard(2)
    yard.submit("a")
    yard.submit("b")
    yard.round()
    stamps = {name: (yard.answer(name).queue or {})["enqueuedAt"] for name in ("a", "b")}
    assert stamps["a"] < stamps["b"]
    for name in ("a", "b"):
        yard.start(name)
        child = yard.jobs[Key("team", name)].child or {}
        annotations = {"annotations": {ENQUEUED_ANNOTATION: stamps[name]}}
        yard.change(name, child={**child, "metadata": child["metadata"] | annotations})
    yard.change("b", status={"phase": "Running", "queue": {"enqueuedAt": stamps["b"]}})
    yard.restart()
    for name in ("a", "b"):
        yard.queue.inventory.put_pod(name, Holder(name, name, "n0", {GPU: 1}, f"team/{name}"))
    yard.round()
    assert {name: (yard.answer(name).queue or {})["enqueuedAt"] for name in ("a", "b")} == stamps


def test_a_job_that_was_done_before_its_first_status_still_has_its_stamp() -> None:
    yard = Yard(1)
    yard.submit("a")
    yard.round()
    stamp = yard.answer("a").queue
    yard.end("a")
    yard.round()
    assert yard.answer("a").queue == stamp
    assert stamp is not None
    assert set(stamp) == {"pool", "enqueuedAt"}


def test_what_earlier_jobs_took_says_when_the_next_one_starts() -> None:
    yard = Yard(1)
    yard.submit("first")
    yard.round()
    yard.start("first")
    yard.round()
    yard.submit("a")
    yard.submit("b")
    yard.seconds = 100
    yard.end("first")
    yard.round()
    yard.start("a")
    yard.round(20)
    found = yard.answer("b").queue
    assert found is not None
    assert found["estimateBasis"] == "history"
    assert found["estimatedStartTime"] == "2026-01-02T10:03:20Z", "a started at 100 s and takes as long as the first"


def test_a_job_whose_start_came_to_nothing_lets_others_pass_until_its_time_also_after_a_restart() -> None:
    yard = Yard(1)
    for name in ("a", "b"):
        yard.submit(name)
    failed = {"count": 1, "seconds": 300, "message": "No node.", "notBefore": "2026-01-02T10:01:00Z"}
    yard.change("a", status={"queue": {"enqueuedAt": "2026-01-02T10:00:00.000000Z", "failedStarts": failed}})
    yard.restart()
    yard.round()
    found = yard.answer("a")
    assert (found.reason, found.message) == (
        "BackingOff",
        "No node. It keeps its place and is tried again at 10:01:00 UTC.",
    )
    assert found.queue is not None
    assert found.queue["position"] == 1
    assert yard.answer("b").admitted
    yard.change("b", spec={"stop": "Graceful"})
    yard.round(59)
    assert not yard.answer("a").admitted
    yard.round(1)
    assert yard.answer("a").admitted


def test_a_quota_without_headroom_is_told_and_its_job_starts_at_its_place_when_there_is_some() -> None:
    yard = Yard(4)
    yard.queue.quotas.put("q", quota_of(quota({f"requests.{GPU}": "2"}, {f"requests.{GPU}": "2"})))
    yard.submit("a", 2)
    yard.round()
    found = yard.answer("a")
    assert (found.reason, found.message) == (
        "QuotaExceeded",
        "Namespace team may use 2 nvidia.com/gpu (ResourceQuota gpus) and uses 2; this job needs 2.",
    )
    yard.queue.quotas.put("q", quota_of(quota({f"requests.{GPU}": "3"}, {f"requests.{GPU}": "1"})))
    yard.submit("b", 2)
    yard.round(20)
    found = yard.answer("a")
    assert found.admitted
    assert found.quota == "", "its Job is not there yet, and nobody refused its pod"
    assert yard.answer("b").reason == "QuotaExceeded", "what a will use is not in the quota's status yet"


def test_a_job_that_was_let_in_says_which_quota_refuses_its_pod() -> None:
    yard = Yard(4)
    yard.submit("a", 2)
    yard.round()
    yard.change("a", child={"metadata": {"creationTimestamp": "2026-01-02T10:00:00Z"}, "spec": {}, "status": {}})
    yard.queue.quotas.put("q", quota_of(quota({"pods": "1"}, {"pods": "1"})))
    yard.round()
    found = yard.answer("a")
    assert found.admitted
    assert found.quota == "Namespace team may use 1 pods (ResourceQuota gpus) and uses 1; this job needs 1."


def test_a_job_whose_job_cannot_be_made_gives_up_its_turn() -> None:
    yard = Yard(1)
    yard.submit("a")
    yard.round()
    yard.submit("b")
    yard.round()
    assert not yard.answer("b").admitted
    failed = {"count": 1, "seconds": 300, "message": "Refused.", "notBefore": "2026-01-02T10:06:00Z"}
    yard.change("a", status={"queue": {"failedStarts": failed}})
    yard.round(300)
    assert yard.answer("b").admitted
    assert yard.answer("a").reason == "BackingOff"
    yard.change("b", spec={"stop": "Graceful"})
    yard.round(60)
    assert yard.answer("a").admitted, "its time has come, and nothing was made of it yet"
    yard.change("a")
    yard.round(1)
    assert yard.answer("a").admitted


def test_the_time_to_start_is_the_policys_and_not_for_jobs_without_gpus() -> None:
    yard = Yard(1, Policy(start_seconds=7))
    yard.submit("a")
    yard.submit("cpu", 0)
    yard.round()
    assert (yard.answer("a").start_seconds, yard.answer("cpu").start_seconds) == (7, None)
    yard.added.clear()
    yard.policy = Policy(start_seconds=9)
    yard.round()
    assert yard.answer("a").start_seconds == 9
    assert "a" in yard.added, "its deadline is another one"


def test_nobodys_turn_is_expected_after_that_of_a_job_that_holds_up_nobody() -> None:
    yard = Yard(2)
    yard.submit("r", 2)
    yard.round()
    yard.start("r", 2)
    yard.change("r", status={"progress": {"remainingSeconds": 100, "updatedAt": NOW.isoformat()}})
    yard.submit("late", 2)
    failed = {"count": 9, "seconds": 1, "message": "No node.", "notBefore": "2026-01-02T11:00:00Z"}
    yard.change("late", status={"queue": {"failedStarts": failed}})
    yard.submit("next", 2)
    yard.round()
    late, found = yard.answer("late").queue, yard.answer("next").queue
    assert late is not None
    assert found is not None
    assert "estimatedStartTime" not in late
    assert found["estimatedStartTime"] == "2026-01-02T10:01:40Z"


def test_what_can_never_fit_is_told_so_without_a_place() -> None:
    yard = Yard(1)
    yard.submit("a", 2)
    yard.round()
    found = yard.answer("a")
    assert found.reason == "ExceedsCapacity"
    assert found.queue is not None
    assert "position" not in found.queue


def test_stop_and_deletion_leave_the_queue() -> None:
    yard = Yard(1)
    for name in ("a", "b", "c", "d"):
        yard.submit(name)
    yard.round()
    yard.start("a")
    yard.change("b", spec={"stop": "Graceful"})
    del yard.jobs[Key("team", "c")]
    yard.queue.look(Key("team", "c"))
    yard.round(20)
    found = yard.answer("d").queue
    assert found is not None
    assert (found["position"], found["length"]) == (1, 1)
    assert [row["name"] for row in yard.queue.describe()["waiting"]] == ["d"]


def ran(uid: str, started: int, finished: int | None = None) -> dict[str, Any]:
    """A pod whose container runs, or ran."""
    times = {"startedAt": f"2026-01-02T10:00:{started:02}Z"}
    if finished is not None:
        times["finishedAt"] = f"2026-01-02T10:00:{finished:02}Z"
    state = {"running" if finished is None else "terminated": times}
    return {"metadata": {"uid": uid}, "status": {"containerStatuses": [{"name": "trainer", "state": state}]}}


def test_how_long_a_job_ran_is_told_by_its_pod_however_late_the_others_are() -> None:
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
