"""Kueue mode on a real API server and Job controller with Kueue's CRDs; a test controller replaces Kueue."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.api import kueue_support
from tests.api.chart_support import ROOT
from tests.api.gateway_support import RESTRICTED, Kubernetes, plane, until
from tests.api.kueue_front import WEBHOOKS, Front
from tests.api.kueue_support import CHART, FLAVOR_LABEL, GROUP, QUEUE, Manager
from tests.api.operator_support import (
    NODE,
    SPEC,
    USER,
    Operator,
    Pod,
    Team,
    TrainingJob,
    leading,
    requests_by,
    team_namespace,
    termination,
)
from tests.api.webhook_support import Webhook

pytestmark = pytest.mark.api
Object = dict[str, Any]
GPU_SPEC = {**SPEC["resources"], "gpus": 1}
PAUSE = 8
"""Least seconds between two requests for the positions of a queue."""


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with plane(f"test-kueue-{os.getpid()}") as kubernetes:
        kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        yield kubernetes


@pytest.fixture(scope="module")
def front(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with Front(kubernetes, tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture(scope="module")
def operator(kubernetes: Kubernetes, front: Front, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    with leading(
        Operator(kubernetes, folder, "kueue", chart=CHART, through=front.kubeconfig, TRAINYARD_QUEUE_MODE="Kueue")
    ) as operator:
        yield operator


@pytest.fixture(scope="module")
def before_kueue(kubernetes: Kubernetes, operator: Operator) -> Iterator[tuple[TrainingJob, Object]]:
    """A TrainingJob and its status from before Kueue was installed."""
    with team_namespace(kubernetes, "early", RESTRICTED) as team:
        job = submit(team, "early")
        yield job, job.wait("Queued")


@pytest.fixture(scope="module")
def manager(kubernetes: Kubernetes, front: Front, before_kueue: tuple[TrainingJob, Object]) -> Iterator[Manager]:
    """The replacement of Kueue, installed after the operator and a job."""
    kueue_support.install(kubernetes)
    manager = Manager(kubernetes.client)
    front.positions = manager.positions
    manager.start()
    yield manager
    manager.stop()
    assert manager.errors == []


@pytest.fixture
def team(kubernetes: Kubernetes, operator: Operator, manager: Manager, front: Front) -> Iterator[Team]:
    """A namespace with a LocalQueue; the ClusterQueue has 2 GPUs. The operator's writes are checked in the end."""
    if operator.process.poll() is not None:
        operator.restart()
    kueue_support.cluster_queue(kubernetes, 2)
    with team_namespace(kubernetes, "kueue", RESTRICTED) as made:
        kueue_support.local_queue(kubernetes, made.namespace)
        yield made
        kubernetes.kubectl("delete", "trainingjobs", "--all", "-n", made.namespace, "--wait=true")
        until(lambda: not kubernetes.client.get(f"{GROUP}/namespaces/{made.namespace}/workloads")["items"])
    front.check_writes()


def submit(team: Team, name: str, **spec: Any) -> TrainingJob:
    return team.create(name, **{"resources": GPU_SPEC, "queue": {"name": QUEUE}, **spec})


def workload(job: TrainingJob) -> Object:
    uid = job.child()["metadata"]["uid"]
    path = f"{GROUP}/namespaces/{job.team.namespace}/workloads?labelSelector=kueue.x-k8s.io%2Fjob-uid%3D{uid}"
    found: list[Object] = until(lambda: job.client.get(path)["items"])
    return found[0]


def wait_for(job: TrainingJob, phase: str, reason: str) -> Object:
    """Wait for a phase and the reason of the condition Admitted."""

    def reached() -> bool:
        return job.status().get("phase") == phase and job.condition("Admitted").get("reason") == reason

    with suppress(AssertionError):
        until(reached)
    assert reached(), json.dumps(job.status(), indent=1)
    return job.status()


def save_and_end(job: TrainingJob, pod: Any, step: int = 40) -> None:
    """Act as a trainer that saves on request and exits 75."""
    pod.wait_for_deletion()
    pod.end(75, termination("Stopped", step=step, message="Saved.", exit_code=75, reason="Saved"))


def test_job_waits_until_kueue_is_installed(
    before_kueue: tuple[TrainingJob, Object], manager: Manager, kubernetes: Kubernetes, operator: Operator
) -> None:
    job, early = before_kueue
    assert early["message"].startswith("Kueue is not there: the API server does not serve kueue.x-k8s.io/v1beta2.")
    assert (early["queue"]["reason"], "jobName" in early) == ("KueueUnavailable", False)
    kueue_support.cluster_queue(kubernetes, 2)
    kueue_support.local_queue(kubernetes, job.team.namespace)
    until(lambda: "jobName" in job.status())
    job.run()
    job.delete()
    until(lambda: not kubernetes.client.get(f"{GROUP}/workloads")["items"])


def test_two_jobs_have_positions_reasons_and_kueues_nodes(team: Team, operator: Operator) -> None:
    first = submit(team, "first", resources={**GPU_SPEC, "gpus": 2})
    pod = first.run()
    labels = first.child()["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == QUEUE
    assert labels["kueue.x-k8s.io/priority-class"] == "trainyard-p5"
    assert first.child()["spec"]["template"]["spec"]["nodeSelector"] == FLAVOR_LABEL
    assert first.condition("Admitted")["status"] == "True"
    second, third = submit(team, "second"), submit(team, "third", queue={"name": QUEUE, "priority": 4})
    waiting = wait_for(second, "Queued", "WaitingForQuota")
    assert waiting["message"] == (
        "Kueue has not admitted it: couldn't assign flavors to pod set main: insufficient unused quota for "
        "nvidia.com/gpu in flavor default-flavor, 1 more needed."
    )
    assert second.condition("Admitted")["status"] == "False"
    until(lambda: third.status()["queue"].get("position") == 2)
    until(lambda: second.status()["queue"].get("length") == 2)
    queue = second.status()["queue"]
    assert (queue["pool"], queue["position"], queue["length"]) == (QUEUE, 1, 2)
    assert second.status()["summary"]["queue"] == "1 of 2"
    until(lambda: shown(operator, "waiting", team) == [("second", 1), ("third", 2)])
    assert shown(operator, "holding", team) == [("first", None)]
    assert operator.get("/gpus")[0] == 200
    first.finish(pod)
    first.wait("Succeeded")
    second.run()
    assert second.status()["queue"].keys() == {"pool", "enqueuedAt"}
    third.run()


def shown(operator: Operator, part: str, team: Team) -> list[tuple[str, int | None]]:
    """Return names and positions of the team's jobs in a part of the debug view."""
    rows = operator.get_json("/queue")[part]
    return [(row["name"], row.get("position")) for row in rows if row["namespace"] == team.namespace]


def renewals(kubernetes: Kubernetes, after: int) -> list[Object]:
    """Writes of the operator's Lease since an event of the audit log."""
    made = requests_by(kubernetes, USER, after)
    renewed = ("update", "leases")
    return [entry for entry in made if (entry["verb"], entry.get("objectRef", {}).get("resource")) == renewed]


def test_positions_are_requested_once_per_queue_while_a_job_waits(team: Team, front: Front) -> None:
    submit(team, "first", resources={**GPU_SPEC, "gpus": 2}).run()
    front.polls.clear()
    # Renewals are two seconds apart: six take longer than the ten seconds between two requests.
    seen = len(team.kubernetes.audit())
    until(lambda: len(renewals(team.kubernetes, seen)) >= 6)
    assert front.polls == [], "no job waits"
    began = time.monotonic()
    waiting = [submit(team, f"waits-{number}") for number in range(3)]
    until(lambda: [job.status().get("queue", {}).get("position") for job in waiting] == [1, 2, 3])
    until(lambda: len(front.polls) >= 3)
    moments = [at for version, queue, at in front.polls if queue == f"{team.namespace}/{QUEUE}"]
    # Requests are about ten seconds apart.
    assert [at - began for number, at in enumerate(moments) if number > (at - began) / PAUSE] == []


def test_positions_need_the_visibility_api_in_a_supported_version(team: Team, front: Front, operator: Operator) -> None:
    submit(team, "first", resources={**GPU_SPEC, "gpus": 2}).run()
    known, front.positions = front.positions, None
    try:
        job = submit(team, "job")
        wait_for(job, "Queued", "WaitingForQuota")
        polls = len(front.polls)
        until(lambda: len(front.polls) > polls + 1)
        assert "position" not in job.status()["queue"]
        assert operator.log().count("positions in Kueue's queues are unknown") == 1
    finally:
        front.positions = known
    front.version = "v1beta1"
    try:
        until(lambda: job.status()["queue"].get("position") == 1)
    finally:
        front.version = "v1beta2"


def test_preempted_job_resumes_in_the_same_job(team: Team, kubernetes: Kubernetes) -> None:
    kueue_support.cluster_queue(kubernetes, 2, preempts=True)
    low = submit(team, "low", resources={**GPU_SPEC, "gpus": 2}, queue={"name": QUEUE, "priority": 1})
    pod, uid = low.run(), low.child()["metadata"]["uid"]
    high = submit(team, "high", resources={**GPU_SPEC, "gpus": 2}, queue={"name": QUEUE, "priority": 9})
    low.wait("Suspending")
    # The Workload event, which has the cause, may come after the Job's.
    message = "The job saves a checkpoint. Kueue stopped it: Preempted to accommodate a"
    until(lambda: low.status()["message"].startswith(message))
    save_and_end(low, pod)
    waiting = wait_for(low, "Queued", "Preempted")
    assert waiting["message"].endswith("It resumes where it was when Kueue admits it.")
    high.finish(high.run())
    high.wait("Succeeded")
    low.run()
    status = low.status()
    assert (len(status["attempts"]), status["attemptCounts"]["failed"]) == (2, 0)
    assert low.child()["metadata"]["uid"] == uid


def test_suspend_and_resume_of_a_running_job_use_the_workload(team: Team) -> None:
    job = submit(team, "job")
    pod = job.run()
    job.patch(suspend=True)
    until(lambda: workload(job)["spec"]["active"] is False)
    save_and_end(job, pod)
    job.wait("Suspended")
    assert workload(job)["metadata"]["annotations"] == {"trainyard.dev/held": "true"}
    other = submit(team, "other", resources={**GPU_SPEC, "gpus": 2})
    other.run()
    job.patch(suspend=False)
    wait_for(job, "Queued", "WaitingForQuota")
    assert workload(job)["spec"]["active"] is True
    other.delete()
    job.run()
    assert len(job.status()["attempts"]) == 2


def test_suspend_and_resume_of_a_waiting_job(team: Team) -> None:
    first = submit(team, "first", resources={**GPU_SPEC, "gpus": 2})
    first.run()
    job = submit(team, "job")
    wait_for(job, "Queued", "WaitingForQuota")
    job.patch(suspend=True)
    job.wait("Suspended")
    assert workload(job)["spec"]["active"] is False
    first.delete()
    submit(team, "other").run()
    assert job.child()["spec"]["suspend"] is True, "a later job got the free quota"
    job.patch(suspend=False)
    job.run()


def test_graceful_stop_saves_and_forced_stop_does_not_wait(team: Team) -> None:
    gentle, harsh = submit(team, "gentle"), submit(team, "harsh")
    pod, other = gentle.run(), harsh.run()
    gentle.patch(stop="Graceful")
    gentle.wait("Stopping")
    assert workload(gentle)["spec"]["active"] is False
    save_and_end(gentle, pod)
    gentle.wait("Stopped")
    until(lambda: not gentle.client.exists(gentle.child_path))
    harsh.patch(stop="Force")
    other.wait_for_deletion()
    other.remove()
    harsh.wait("Stopped")
    until(lambda: not harsh.client.exists(harsh.child_path))


def test_stopped_waiting_job_cannot_be_started_by_kueue(team: Team) -> None:
    first = submit(team, "first", resources={**GPU_SPEC, "gpus": 2})
    first.run()
    job = submit(team, "job")
    wait_for(job, "Queued", "WaitingForQuota")
    job.patch(stop="Graceful")
    job.wait("Stopped")
    until(lambda: not job.client.exists(job.child_path))
    assert "attempts" not in job.status()


def test_active_deadline_ends_a_running_job(team: Team) -> None:
    job = submit(team, "job", activeDeadlineSeconds=60)
    pod = job.pod()
    pod.start()  # the test kubelet reports that it started long ago
    assert job.wait("Stopping")["message"].startswith("The job ran for 60 s (spec.activeDeadlineSeconds)")
    assert workload(job)["spec"]["active"] is False
    save_and_end(job, pod)
    assert job.wait("Failed")["message"].startswith("The job ran for 60 s without finishing")


def test_priority_and_queue_of_a_waiting_job_can_change(team: Team, kubernetes: Kubernetes, front: Front) -> None:
    kueue_support.local_queue(kubernetes, team.namespace, "other")
    first = submit(team, "first", resources={**GPU_SPEC, "gpus": 2})
    first.run()
    early, late = submit(team, "early", resources={**GPU_SPEC, "gpus": 2}), None
    wait_for(early, "Queued", "WaitingForQuota")
    late = submit(team, "late")
    late.wait("Queued")
    late.patch(queue={"name": "other", "priority": 8})
    until(lambda: workload(late)["spec"]["priorityClassRef"]["name"] == "trainyard-p8")
    until(lambda: workload(late)["spec"]["queueName"] == "other")
    until(lambda: late.status()["queue"]["pool"] == "other")
    first.patch(queue={"name": "other", "priority": 2})
    until(lambda: "takes effect when the job waits the next time" in first.status()["message"])
    assert first.child()["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == QUEUE
    until(lambda: workload(first)["spec"]["priorityClassRef"]["name"] == "trainyard-p2")
    first.delete()
    late.run()
    assert early.status()["phase"] == "Queued"
    assert "jobs" in {resource for resource, _ in front.patches}


def test_a_job_on_two_nodes_is_one_workload_of_two_pods(team: Team) -> None:
    storage = {"size": "1Gi", "accessMode": "ReadWriteMany"}
    gang = submit(team, "gang", resources={**GPU_SPEC, "nodes": 2}, storage=storage)
    until(lambda: len(gang.pods()) == 2)
    assert workload(gang)["spec"]["podSets"][0]["count"] == 2
    for pod in gang.pods():
        Pod(gang, pod["metadata"]["name"]).start()
    gang.wait("Running")
    other = submit(team, "other")
    wait_for(other, "Queued", "WaitingForQuota")
    gang.patch(suspend=True)
    until(lambda: workload(gang)["spec"]["active"] is False)
    for pod in gang.pods():
        save_and_end(gang, Pod(gang, pod["metadata"]["name"]))
    gang.wait("Suspended")
    other.run()


def test_job_without_a_queue_name_waits(team: Team) -> None:
    job = team.create("nameless", resources=GPU_SPEC)
    status = wait_for(job, "Pending", "QueueNameMissing")
    assert status["message"].startswith("spec.queue.name is not set and this installation has no default LocalQueue.")
    assert (job.condition("Admitted")["status"], "jobName" in status) == ("False", False)
    job.patch(queue={"name": QUEUE})
    job.run()


def test_job_larger_than_its_queue_is_reported(team: Team) -> None:
    job = submit(team, "job", resources={**GPU_SPEC, "gpus": 4})
    assert wait_for(job, "Queued", "ExceedsMaxQuota")["message"].endswith(
        "current podset request (4) > maximum capacity (2). Its queue never has that much: lower spec.resources, or "
        "ask the administrator for more quota."
    )


def test_missing_queue_is_reported_and_can_be_changed(team: Team) -> None:
    job = submit(team, "job", queue={"name": "gone"})
    assert (
        wait_for(job, "Queued", "Inadmissible")["message"]
        == "Kueue has not admitted it: LocalQueue gone doesn't exist."
    )
    job.patch(queue={"name": QUEUE})
    job.run()


def test_deactivation_by_a_user_is_reported_with_the_remedy(team: Team) -> None:
    job = submit(team, "job")
    pod = job.run()
    found = workload(job)
    path = f"{GROUP}/namespaces/{team.namespace}/workloads/{found['metadata']['name']}"
    job.client.patch(path, {"spec": {"active": False}})
    save_and_end(job, pod)
    status = wait_for(job, "Queued", "Deactivated")
    assert status["message"] == (
        "Its Workload was deactivated, not by spec.suspend: The workload is deactivated. A user with permission queues "
        f"it again by kubectl patch workloads.kueue.x-k8s.io {found['metadata']['name']} -n {team.namespace} "
        """--type=merge -p '{"spec":{"active":true}}'."""
    )
    options = ("--type=merge", "-p", '{"spec":{"active":true}}')
    team.kubernetes.kubectl(
        "patch", "workloads.kueue.x-k8s.io", found["metadata"]["name"], "-n", team.namespace, *options
    )
    job.run()


def test_deactivation_by_kueue_is_reported_with_the_remedy(team: Team, manager: Manager) -> None:
    job = submit(team, "job")
    pod = job.run()
    manager.reject(workload(job), "budget", "none left")
    save_and_end(job, pod)
    message = wait_for(job, "Queued", "DeactivatedDueToAdmissionCheck")["message"]
    name = workload(job)["metadata"]["name"]
    assert message == (
        "Its Workload was deactivated, not by spec.suspend: The workload is deactivated due to AdmissionCheck in "
        'Rejected state: "budget" (none left). A user with permission queues it again by kubectl delete '
        f"workloads.kueue.x-k8s.io {name} -n {team.namespace}."
    )
    job.client.patch(f"{GROUP}/namespaces/{team.namespace}/workloads/{name}", {"spec": {"active": True}})
    waiting = submit(team, "waiting", resources={**GPU_SPEC, "gpus": 4})
    until(lambda: waiting.status().get("queue", {}).get("position") == 2)
    assert (job.status()["message"], "position" in job.status()["queue"]) == (message, False)
    waiting.delete()
    job.client.delete(f"{GROUP}/namespaces/{team.namespace}/workloads/{name}")
    job.run()


def webhook_failures(operator: Operator) -> int:
    """How often the operator found Kueue's webhook down."""
    return operator.log().count("failed calling webhook")


def test_job_waits_while_kueues_webhook_is_down_or_refuses(team: Team, operator: Operator, tmp_path: Path) -> None:
    webhook = Webhook(team.kubernetes, team.namespace, tmp_path, WEBHOOKS)
    webhook.register()
    try:
        job = submit(team, "job", startDeadlineSeconds=1)
        status = wait_for(job, "Queued", "WebhookUnavailable")
        assert 'failed calling webhook "vjob.kb.io"' in status["message"]
        tried = webhook_failures(operator)
        until(lambda: webhook_failures(operator) >= tried + 5)  # with pauses of 0.1, 0.2, 0.4, 0.8, 1.6 s
        assert job.status()["phase"] == "Queued", "it is never failed for that, whatever time a start may take"
        message = "metadata.labels[kueue.x-k8s.io/queue-name]: Invalid value"
        with webhook.denying(lambda _: {"code": 403, "reason": "Forbidden", "message": message}):
            job.patch(suspend=True)
            job.wait("Suspended")
            refused = submit(team, "refused")
            status = wait_for(refused, "Pending", "CreateForbidden")
            assert "queue-name]: Invalid value" in status["message"]
        job.patch(suspend=False)
        wait_for(job, "Queued", "WebhookUnavailable")
    finally:
        webhook.unregister()
    until(lambda: "jobName" in job.status())  # its own second to start begins only now
    refused.run()


def test_suspension_waits_for_kueues_webhook(team: Team, manager: Manager, tmp_path: Path) -> None:
    job = submit(team, "job")
    pod = job.run()
    webhook = Webhook(team.kubernetes, team.namespace, tmp_path, WEBHOOKS)
    manager.stop()
    webhook.register()
    try:
        job.patch(suspend=True)
        message = job.wait("Suspending")["message"]
        assert message.startswith(
            "The job saves a checkpoint and frees its GPUs. The API server cannot make this change now; the operator"
        )
        assert 'failed calling webhook "vworkload.kb.io"' in message
        assert workload(job)["spec"]["active"] is True
    finally:
        webhook.unregister()
        manager.start()
    until(lambda: workload(job)["spec"]["active"] is False)
    save_and_end(job, pod)
    job.wait("Suspended")


def test_restarted_operator_continues_with_kueues_decisions(team: Team, operator: Operator) -> None:
    running, waiting = submit(team, "running", resources={**GPU_SPEC, "gpus": 2}), submit(team, "waiting")
    pod = running.run()
    wait_for(waiting, "Queued", "WaitingForQuota")
    running.patch(suspend=True)
    until(lambda: workload(running)["spec"]["active"] is False)
    operator.kill()
    save_and_end(running, pod)
    until(lambda: waiting.child()["spec"]["suspend"] is False)
    operator.restart()
    running.wait("Suspended")
    waiting.run()
    operator.kill()
    running.patch(suspend=False)
    operator.restart()
    running.wait("Queued")
    assert workload(running)["spec"]["active"] is True
    waiting.finish(Pod(waiting, waiting.pods()[0]["metadata"]["name"]))
    running.run()


def test_examples_are_accepted(kubernetes: Kubernetes, manager: Manager) -> None:
    folder = ROOT / "examples/kueue"
    arguments = ("apply", "--validate=strict", "--dry-run=server", "-f", str(folder / "queues.yaml"), "-f")
    printed = kubernetes.kubectl(*arguments, str(folder / "job.yaml"))
    assert [line.split("/")[0].split(".")[0] for line in printed.splitlines()] == [
        "resourceflavor",
        "clusterqueue",
        "localqueue",
        "trainingjob",
    ]
