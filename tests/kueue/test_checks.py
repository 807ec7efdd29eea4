"""ClusterQueues with an AdmissionCheck; the tests act as its controller."""

from __future__ import annotations

import shlex

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.kueue.cluster_fixture import FLAVOR, Job, KueueTeam, admission_check, local_queue, queue_of_flavors

CHECK = "budget"


@pytest.fixture
def checked(team: KueueTeam, kubernetes: Kubernetes) -> Job:
    """A job whose quota is reserved and whose check has no state yet."""
    admission_check(kubernetes, CHECK, active=True)
    return submitted(team, kubernetes, "checked", CHECK)


def submitted(team: KueueTeam, kubernetes: Kubernetes, queue: str, check: str) -> Job:
    checks = {"admissionChecks": [{"name": check}]}
    queue_of_flavors(kubernetes, queue, {FLAVOR: 2}, admissionChecksStrategy=checks)
    local_queue(kubernetes, team.namespace, queue, queue)
    return team.submit("job", queue={"name": queue})


def test_admission_check_without_controller_deactivates_the_queue(team: KueueTeam, kubernetes: Kubernetes) -> None:
    admission_check(kubernetes, "unserved", active=False)
    job = submitted(team, kubernetes, "unchecked", "unserved")
    assert job.waits("Inadmissible")["message"] == (
        "Kueue has not admitted it: ClusterQueue unchecked is inactive. It is held, or lacks what it names: see the "
        "condition Active in kubectl describe clusterqueue unchecked."
    )
    description = kubernetes.kubectl("describe", "clusterqueue", "unchecked")
    assert "references inactive AdmissionCheck(s): unserved" in description
    admission_check(kubernetes, "unserved", active=True)
    job.waits("WaitingForAdmissionChecks")
    job.check("unserved", "Ready", "")
    job.runs()


def test_job_starts_when_its_admission_check_is_ready(checked: Job) -> None:
    checked.waits("WaitingForAdmissionChecks")
    checked.check(CHECK, "Pending", "The budget of team blue is requested")
    status = checked.reaches(lambda status: "team blue" in status["message"])
    assert status["message"] == (
        "Its quota is reserved; it waits for admission checks: budget (Pending: The budget of team blue is requested)."
    )
    assert status["queue"].keys() == {"pool", "enqueuedAt", "reason"}, "it has quota and no position any more"
    assert checked.child()["spec"]["suspend"] is True
    checked.check(CHECK, "Ready", "Paid")
    assert checked.runs()["message"] == "Attempt 1 is training."
    checked.succeed()


def test_retrying_admission_check_evicts_the_job(checked: Job) -> None:
    checked.check(CHECK, "Retry", "no budget now", requeueAfterSeconds=8)
    message = checked.waits("AdmissionCheck")["message"]
    assert message.startswith(
        'Kueue took its quota back: Evicted due to AdmissionCheck in Retry state: "budget" (no budget now). '
    )
    assert "It starts when Kueue admits it." in message
    checked.waits("WaitingForAdmissionChecks")
    checked.check(CHECK, "Ready", "Paid")
    uid = checked.child()["metadata"]["uid"]
    checked.runs()
    checked.check(CHECK, "Retry", "the budget is used up", requeueAfterSeconds=8)
    message = checked.waits("AdmissionCheck")["message"]
    assert message.startswith("Kueue stopped it: Evicted due to AdmissionCheck in Retry state: ")
    assert "(the budget is used up). " in message
    assert "It resumes where it was when Kueue admits it." in message
    checked.waits("WaitingForAdmissionChecks")
    checked.check(CHECK, "Ready", "Paid")
    assert checked.runs(attempts=2)["attemptCounts"]["failed"] == 0
    assert checked.child()["metadata"]["uid"] == uid


@pytest.mark.parametrize("attempts", [0, 1], ids=["waits", "runs"])
def test_rejecting_admission_check_reports_how_to_requeue(checked: Job, kubernetes: Kubernetes, attempts: int) -> None:
    checked.waits("WaitingForAdmissionChecks")
    if attempts:
        checked.check(CHECK, "Ready", "Paid")
        checked.runs()
    checked.check(CHECK, "Rejected", "team blue has no budget")
    message = checked.waits("DeactivatedDueToAdmissionCheck")["message"]
    assert message.startswith(
        "Its Workload was deactivated, not by spec.suspend: The workload is deactivated due to AdmissionCheck in "
        'Rejected state: "budget" (team blue has no budget). A user with permission queues it again by kubectl delete '
    )
    checked.patch(suspend=True)
    assert checked.wait("Suspended")["message"].endswith(f" Resuming it takes more than spec.suspend: false. {message}")
    checked.patch(suspend=False)
    assert checked.waits("DeactivatedDueToAdmissionCheck")["message"] == message
    command = message.split(" queues it again by ")[1].rstrip(".")
    kubernetes.kubectl(*shlex.split(command)[1:])
    checked.waits("WaitingForAdmissionChecks")
    checked.check(CHECK, "Ready", "Paid")
    assert checked.runs(attempts=attempts + 1)["attemptCounts"]["failed"] == 0


def test_activated_workload_after_rejection_is_not_reported_as_queued(
    team: KueueTeam, checked: Job, kubernetes: Kubernetes
) -> None:
    checked.check(CHECK, "Rejected", "team blue has no budget")
    message = checked.waits("DeactivatedDueToAdmissionCheck")["message"]
    name = message.split("workloads.kueue.x-k8s.io ")[1].split()[0]
    patch = ("--type=merge", "-p", '{"spec":{"active":true}}')
    kubernetes.kubectl("patch", "workloads.kueue.x-k8s.io", name, "-n", team.namespace, *patch)
    running = team.submit("running", gpus=2, queue={"name": "checked"})
    running.waits("WaitingForAdmissionChecks")
    waiting = team.submit("waiting", queue={"name": "checked"})
    until(lambda: waiting.position() is not None)
    status = checked.waits("DeactivatedDueToAdmissionCheck")
    assert (status["message"], checked.workload_spec()["active"]) == (message, True)
    assert "position" not in status["queue"]
