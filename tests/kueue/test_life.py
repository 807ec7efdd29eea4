"""Jobs under Kueue: waiting, starting, preemption, resuming and ending, and the status of each."""

from __future__ import annotations

import json

from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import Operator
from tests.kueue.cluster_fixture import QUEUE, KueueTeam, cluster_queue, local_queue


def test_job_waits_with_position_and_reason_until_admission(team: KueueTeam, operator: Operator) -> None:
    first = team.submit("first", gpus=2)
    first.runs()
    template = first.child()["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"type": "kwok"}, "of the ResourceFlavor"
    assert template["tolerations"][0]["key"] == "kwok.x-k8s.io/node"
    assert first.condition("Admitted")["status"] == "True"
    second, third = team.submit("second"), team.submit("third", priority=4)
    waiting = second.waits("WaitingForQuota")
    assert waiting["message"] == (
        "Kueue has not admitted it: couldn't assign flavors to pod set main: insufficient unused quota for "
        "nvidia.com/gpu in flavor gpu-nodes, 1 more needed."
    )
    assert second.condition("Admitted")["status"] == "False"
    until(lambda: third.status()["queue"].get("position") == 2)
    queue = second.status()["queue"]
    assert (queue["pool"], queue["position"], queue["length"]) == (QUEUE, 1, 2)
    shown = json.loads(operator.get("/queue")[1])
    own = [row for row in shown["waiting"] if row["namespace"] == team.namespace]
    assert [(row["name"], row["position"]) for row in own] == [("second", 1), ("third", 2)]
    first.succeed()
    second.runs()
    third.runs()
    assert second.status()["queue"].keys() == {"pool", "enqueuedAt"}
    second.succeed()
    third.succeed()


def test_priority_orders_waiting_jobs_and_can_change(team: KueueTeam) -> None:
    first = team.submit("first", gpus=2)
    first.runs()
    names = {"low": 1, "middle": 5, "high": 9}
    jobs = {name: team.submit(name, gpus=2, priority=priority) for name, priority in names.items()}
    for job in jobs.values():
        job.waits("WaitingForQuota")
    assert [jobs[name].workload_spec()["priority"] for name in names] == [100, 500, 900]
    jobs["low"].patch(queue={"name": QUEUE, "priority": 7})
    until(lambda: jobs["low"].workload_spec()["priority"] == 700)
    until(lambda: [jobs[name].position() for name in ("high", "low", "middle")] == [1, 2, 3])
    first.succeed()
    for name in ("high", "low", "middle"):
        jobs[name].runs()
        assert sum(job.status()["phase"] == "Running" for job in jobs.values()) == 1
        jobs[name].succeed()


def test_priority_and_queue_of_a_running_job_can_change(team: KueueTeam, kubernetes: Kubernetes) -> None:
    job = team.submit("job")
    job.runs()
    local_queue(kubernetes, team.namespace, "other")
    job.patch(queue={"name": "other", "priority": 2})
    until(lambda: job.workload_spec()["priority"] == 200)
    status = job.reaches(lambda status: "takes effect when the job waits the next time" in status["message"])
    assert (status["phase"], status["queue"]["pool"]) == ("Running", QUEUE)
    job.patch(suspend=True)
    job.wait("Suspended")
    job.patch(suspend=False)
    job.runs(attempts=2)
    assert job.workload_spec()["queueName"] == "other"


def test_suspend_and_resume_of_a_running_job(team: KueueTeam) -> None:
    job = team.submit("job", gpus=2)
    job.runs()
    uid = job.child()["metadata"]["uid"]
    job.patch(suspend=True)
    job.wait("Suspended")
    assert job.live() == []
    assert job.workload_spec()["active"] is False
    other = team.submit("other", gpus=2)
    other.runs()
    job.patch(suspend=False)
    job.waits("WaitingForQuota")
    assert job.workload_spec()["active"] is True
    other.succeed()
    status = job.runs(attempts=2)
    assert status["attemptCounts"]["failed"] == 0
    assert job.child()["metadata"]["uid"] == uid
    job.succeed()


def test_suspend_and_resume_of_a_waiting_job(team: KueueTeam) -> None:
    first = team.submit("first", gpus=2)
    first.runs()
    job = team.submit("job")
    job.waits("WaitingForQuota")
    job.patch(suspend=True)
    job.wait("Suspended")
    until(lambda: job.workload_spec()["active"] is False)
    first.succeed()
    team.submit("later").runs()
    assert job.child()["spec"]["suspend"] is True, "a later job got the free quota"
    job.patch(suspend=False)
    job.runs()


def test_stop_of_running_and_waiting_jobs(team: KueueTeam) -> None:
    gentle, harsh, waiting = team.submit("gentle"), team.submit("harsh"), team.submit("waiting", priority=1)
    gentle.runs()
    harsh.runs()
    waiting.waits("WaitingForQuota")
    waiting.patch(stop="Graceful")
    waiting.wait("Stopped")
    gentle.patch(stop="Graceful")
    gentle.wait("Stopped")
    harsh.patch(stop="Force")
    harsh.wait("Stopped")
    until(lambda: team.names("jobs", "batch/v1") == [])
    until(lambda: team.workloads() == [])
    assert "attempts" not in waiting.status()
    assert len(gentle.status()["attempts"]) == 1


def test_preempted_job_resumes_without_using_a_retry(team: KueueTeam, kubernetes: Kubernetes) -> None:
    cluster_queue(kubernetes, 2, preemption={"withinClusterQueue": "LowerPriority"})
    low = team.submit("low", gpus=2, priority=1)
    low.runs()
    uid = low.child()["metadata"]["uid"]
    high = team.submit("high", gpus=2, priority=9)
    high.runs()
    waiting = low.waits("Preempted")
    assert waiting["queue"]["reason"] == "Preempted"
    assert waiting["message"].startswith("Kueue stopped it: Preempted to accommodate a workload (UID: ")
    assert waiting["message"].endswith("It resumes where it was when Kueue admits it.")
    high.succeed()
    status = low.runs(attempts=2)
    assert (status["attemptCounts"]["total"], status["attemptCounts"]["failed"]) == (2, 0)
    assert status["attempts"][0]["reason"] == "Interrupted"
    assert low.child()["metadata"]["uid"] == uid
    low.succeed()


def test_a_job_on_two_nodes_is_admitted_whole(team: KueueTeam) -> None:
    first = team.submit("first")
    first.runs()
    gang = team.submit("gang", nodes=2)
    gang.waits("WaitingForQuota")
    assert gang.workload_spec()["podSets"][0]["count"] == 2
    assert gang.live() == []
    first.succeed()
    gang.runs()
    assert len(gang.live()) == 2
    gang.patch(suspend=True)
    gang.wait("Suspended")
    until(lambda: gang.live() == [])
    gang.patch(suspend=False)
    gang.runs(attempts=2)
    until(lambda: len(gang.live()) == 2)
    gang.succeed()


def test_job_that_exceeds_its_quota_waits_until_the_quota_grows(team: KueueTeam, kubernetes: Kubernetes) -> None:
    job = team.submit("job", gpus=4)
    assert job.waits("ExceedsMaxQuota")["message"] == (
        "Kueue has not admitted it: couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in "
        "flavor gpu-nodes, previously considered podsets requests (0) + current podset request (4) > maximum capacity "
        "(2). Its queue never has that much: lower spec.resources, or ask the administrator for more quota."
    )
    team.submit("small").runs()
    cluster_queue(kubernetes, 8)
    job.runs()


def test_job_whose_nodes_match_no_flavor_waits(team: KueueTeam) -> None:
    resources = {"gpus": 1, "cpu": "100m", "memory": "64Mi", "nodeSelector": {"type": "other"}}
    job = team.submit("job", resources=resources)
    assert job.waits("NoMatchingFlavor")["message"] == (
        "Kueue has not admitted it: couldn't assign flavors to pod set main: flavor gpu-nodes doesn't match node "
        "affinity. No ResourceFlavor of its queue matches spec.resources.nodeSelector and tolerations."
    )
