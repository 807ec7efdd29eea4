"""Pod options on a real API server: pods under Pod Security restricted, a LimitRange, the chart's defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.chart_support import MINIMAL, named, render
from tests.api.gateway_support import RESTRICTED, Kubernetes, until
from tests.api.operator_support import Operator, Team, TrainingJob, leading, team_namespace
from trainyard_crds.pod_options import PodOptions

pytestmark = pytest.mark.api

ALL: dict[str, Any] = {
    "labels": {"example.com/cost-center": "4711"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "image": "registry.local/own-trainer:1",
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "bucket-reader",
    "runtimeClassName": "pod-options",
    "priorityClassName": "pod-options",
    "schedulerName": "other-scheduler",
    "env": [
        {"name": "HF_ENDPOINT", "value": "https://hub.example.com"},
        {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
    ],
    "envFrom": [{"secretRef": {"name": "more"}}, {"configMapRef": {"name": "network"}}],
    "caBundle": {"name": "company-ca", "key": "ca.crt"},
    "securityContext": {"runAsUser": 2000, "runAsGroup": 2000, "fsGroup": 2000},
}
RESOURCES = {"gpus": 0, "cpu": "1", "memory": "2Gi"}
STORAGE = {"ephemeralStorage": "20Gi", "scratchSize": "15Gi", "tmpSize": "2Gi"}
PLACEMENT = {
    "nodeAffinity": [
        {"key": "zone", "operator": "In", "values": ["a", "b"]},
        {"key": "spot", "operator": "DoesNotExist"},
    ],
    "extended": [{"name": "rdma/hca", "quantity": "2"}, {"name": "hugepages-2Mi", "quantity": "4Mi"}],
    "claims": [{"name": "nic", "resourceClaimTemplateName": "fast-nic"}],
}
CHART: dict[str, Any] = {
    "labels": {"example.com/site": "north"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "propagateLabels": ["example.com/*"],
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "bucket-reader",
    "runtimeClassName": "nvidia",
    "priorityClassName": "pod-options",
    "caBundle": {"name": "company-ca"},
    "securityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    "ephemeralStorage": "30Gi",
    "env": {"HTTPS_PROXY": "http://proxy:3128"},
}
PASSED = (
    "POD_DEFAULTS",
    "TRAINING_ENV",
    "EPHEMERAL_STORAGE",
    "SCRATCH_SIZE",
    "TMP_SIZE",
    "RETENTION_SECONDS",
    "WATCH_NAMESPACES",
)


@pytest.fixture
def classes(control_plane: Kubernetes) -> Iterator[Kubernetes]:
    """A RuntimeClass and a PriorityClass; the API server refuses pods that name others."""
    made: list[dict[str, Any]] = [
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc"},
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 100},
    ]
    for body in made:
        control_plane.apply(body | {"metadata": {"name": "pod-options"}})
    yield control_plane
    for body in made:
        control_plane.kubectl("delete", f"{body['kind']}/pod-options", "--wait=false")


def service_account(team: Team, name: str) -> None:
    metadata = {"name": name, "namespace": team.namespace}
    team.kubernetes.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})


def first_pod(job: TrainingJob) -> dict[str, Any]:
    """Wait for the first pod of a job."""
    return dict(until(job.pods)[0])


def test_pod_with_every_option_passes_pod_security_restricted(
    operator: Operator, team: Team, classes: Kubernetes
) -> None:
    assert set(ALL) == {field.alias for field in PodOptions.model_fields.values()}
    service_account(team, "bucket-reader")
    job = team.create("all", pod=ALL, resources=RESOURCES | STORAGE | PLACEMENT)
    pod = first_pod(job)
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert pod["metadata"]["labels"]["example.com/cost-center"] == "4711"
    assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    same = ("imagePullSecrets", "serviceAccountName", "runtimeClassName", "priorityClassName", "schedulerName")
    assert {name: spec[name] for name in same} == {name: ALL[name] for name in same}
    assert spec["priority"] == 100
    assert ALL["securityContext"].items() <= spec["securityContext"].items()
    assert (container["image"], container["envFrom"]) == (ALL["image"], ALL["envFrom"])
    assert container["resources"]["limits"]["ephemeral-storage"] == "20Gi"
    assert container["resources"]["limits"].items() >= {"rdma/hca": "2", "hugepages-2Mi": "4Mi"}.items()
    assert (container["resources"]["claims"], spec["resourceClaims"]) == ([{"name": "nic"}], PLACEMENT["claims"])
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == PLACEMENT["nodeAffinity"]
    sizes = {volume["name"]: volume["emptyDir"].get("sizeLimit") for volume in spec["volumes"] if "emptyDir" in volume}
    assert sizes == {"home": "15Gi", "tmp": "2Gi", "shm": str(512 << 20)}


def test_gang_and_its_pods_have_the_options(operator: Operator, team: Team, classes: Kubernetes) -> None:
    service_account(team, "bucket-reader")
    spread = [{"topologyKey": "rack"}]
    job = team.create("pair", pod=ALL, resources=RESOURCES | {"nodes": 2, "topologySpread": spread})
    until(lambda: len(job.pods()) == 2)
    for pod in job.pods():
        (constraint,) = pod["spec"]["topologySpreadConstraints"]
        assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == ("rack", "ScheduleAnyway")
        assert constraint["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert {pod["spec"]["serviceAccountName"] for pod in job.pods()} == {"bucket-reader"}


def test_ephemeral_storage_of_a_job_replaces_the_default_of_a_limit_range(operator: Operator, team: Team) -> None:
    default = {"ephemeral-storage": "64Mi"}
    limits = [{"type": "Container", "default": default, "defaultRequest": default}]
    metadata = {"name": "small", "namespace": team.namespace}
    team.kubernetes.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}})
    found = {}
    for name, storage in {"unset": {}, "set": {"ephemeralStorage": "20Gi"}}.items():
        job = team.create(name, resources=RESOURCES | storage)
        found[name] = first_pod(job)["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"]
    assert found == {"unset": "64Mi", "set": "20Gi"}


@pytest.fixture(scope="module")
def watched(
    session_operator: Operator, control_plane: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    """The only namespace of an operator with the permissions and settings that the chart gives it.

    The last tests of the file use it.
    """
    folder = tmp_path_factory.mktemp("chart")
    with team_namespace(control_plane, "watched", RESTRICTED) as team:
        chart = {"training": CHART, "retention": {"finishedSeconds": 60}, "watchNamespaces": [team.namespace]}
        values = folder / "values.yaml"
        values.write_text(json.dumps(chart))
        spec = named(render(MINIMAL, f"--values={values}"), "Deployment", "trainyard-operator")["spec"]["template"]
        variables = {one["name"]: one.get("value", "") for one in spec["spec"]["containers"][0]["env"]}
        environment = {f"TRAINYARD_{name}": variables[f"TRAINYARD_{name}"] for name in PASSED}
        session_operator.stop()  # the fixture of other tests starts it again
        with leading(Operator(control_plane, folder, "chart", chart=(f"--values={values}",), **environment)):
            yield team


def test_defaults_of_the_chart_reach_the_pods_but_not_the_spec(watched: Team, classes: Kubernetes) -> None:
    service_account(watched, "bucket-reader")
    job = watched.create("defaults", resources=RESOURCES)
    pod = first_pod(job)
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert "pod" not in job.read()["spec"]
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("bucket-reader", "pod-options")
    assert "runtimeClassName" not in spec, "the pod has no GPU"
    assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert container["resources"]["limits"]["ephemeral-storage"] == "30Gi"
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]
    assert {"name": "SSL_CERT_FILE", "value": "/etc/trainyard/ca-bundle/ca.crt"} in container["env"]
    assert not {"runAsUser", "fsGroup"} & spec["securityContext"].keys(), "the cluster chooses the user"


def test_finished_job_is_deleted_after_the_time_of_the_chart(watched: Team) -> None:
    job, kept = (watched.create(name, suspend=True, stop="Force") for name in ("old", "new"))
    job.wait("Stopped")
    kept.wait("Stopped")
    job.client.patch(f"{job.path}/status", {"status": {"completionTime": "2026-01-01T00:00:00Z"}})
    until(lambda: not job.client.exists(job.path))
    assert kept.read()["status"]["phase"] == "Stopped"


def test_job_in_another_namespace_is_left_alone(watched: Team, team: Team, classes: Kubernetes) -> None:
    service_account(watched, "bucket-reader")
    other = team.create("elsewhere", resources=RESOURCES)
    first_pod(watched.create("here", resources=RESOURCES))
    assert "phase" not in other.status()
    assert not other.client.exists(other.child_path)
    until(lambda: "trainyard-ca" in watched.names("configmaps"))
    assert "trainyard-ca" not in team.names("configmaps")
