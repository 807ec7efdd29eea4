"""Faults that users of other operators and charts reported, tried on a real control plane (docs/reliability.md)."""

from __future__ import annotations

import pytest

from tests.api.chart_support import CHART, MINIMAL, NAMESPACE, helm, render
from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import SPEC, Operator, Team, TrainingJob
from trainyard_kube.errors import ApiError

pytestmark = pytest.mark.api

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


def test_longest_allowed_name_runs_and_a_longer_one_is_refused(operator: Operator, team: Team) -> None:
    team.create("a" * 48).run()
    with pytest.raises(ApiError, match="may have at most 48 characters"):
        team.create("a" * 49)


def test_name_with_a_dot_runs(operator: Operator, team: Team) -> None:
    team.create("sample.foo").run()


def test_status_in_a_manifest_is_ignored(operator: Operator, team: Team) -> None:
    path = f"/apis/trainyard.dev/v1alpha1/namespaces/{team.namespace}/trainingjobs/copied"
    body = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "copied", "namespace": team.namespace},
        "spec": SPEC,
        "status": {"phase": "Failed", "jobName": "job-of-another-run", "startTime": "2999-01-01T00:00:00Z"},
    }
    job = TrainingJob(team, "copied", team.client.apply(path, body)["metadata"]["uid"])
    job.run()
    assert job.status()["jobName"] == job.child_name


def test_active_deadline_ends_a_job_without_another_event(operator: Operator, team: Team) -> None:
    job = team.create("quiet", activeDeadlineSeconds=3)
    pod = job.pod()
    pod.start()
    pod.wait_for_deletion()
    pod.end(75)
    assert "ran for 3 s" in job.wait("Failed")["message"]
    assert job.condition("Failed")["reason"] == "DeadlineExceeded"


def test_missing_service_account_is_reported_while_the_job_waits(operator: Operator, team: Team) -> None:
    job = team.create("unknown-account", pod={"serviceAccountName": "missing"})
    until(lambda: 'serviceaccount "missing" not found' in job.status().get("message", ""))


def test_check_pod_has_the_pull_secrets_of_its_job(operator: Operator, team: Team) -> None:
    job = team.create("private", pod={"imagePullSecrets": [{"name": "registry"}]})
    job.run().end(0)
    pod = job.pod("check").read()
    assert pod is not None
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_retry_limit_bounds_the_attempts(operator: Operator, team: Team) -> None:
    job = team.create("flaky", retry={"limit": 1})
    job.run().end(137)
    job.run().end(137)
    status = job.wait("Failed")
    assert status["attemptCounts"]["failed"] == 2
    assert "spec.retry.limit: 1" in status["message"]


def test_second_release_is_refused(operator: Operator, control_plane: Kubernetes) -> None:
    place = (f"--kubeconfig={control_plane.cluster.kubeconfig}", "--namespace=second", "--create-namespace")
    words = ("install", "second", str(CHART), *place, f"--values={MINIMAL}", "--set=crds.install=false")
    assert "cannot be imported into the current release" in helm(*words, check=False).stderr


def test_every_object_of_the_chart_names_its_namespace() -> None:
    inside = [entry for entry in render() if entry["kind"] not in CLUSTER_WIDE]
    assert inside
    assert {entry["metadata"].get("namespace") for entry in inside} == {NAMESPACE}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("nodeSelector", '{"control-plane":""}', {"control-plane": ""}),
        ("tolerations", '[{"operator":"Exists"}]', [{"operator": "Exists"}]),
        ("affinity", '{"nodeAffinity":{}}', {"nodeAffinity": {}}),
    ],
)
def test_each_placement_value_takes_effect_alone(key: str, value: str, expected: object) -> None:
    found = [entry for entry in render(MINIMAL, f"--set-json={key}={value}") if entry["kind"] == "Deployment"]
    assert [entry["spec"]["template"]["spec"][key] for entry in found] == [expected, expected]
