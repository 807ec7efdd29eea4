"""The chart: rendered by Helm, validated by an API server, installed, upgraded and uninstalled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.chart_support import CHART, MINIMAL, NAMESPACE, Object, helm, named, render
from tests.api.gateway_support import RESTRICTED, Kubernetes, plane, until
from trainyard_operator.admission.policy_file import PolicyFile

pytestmark = pytest.mark.api

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with plane(f"test-chart-{os.getpid()}", first=lambda _: None) as kubernetes:
        kubernetes.namespace(NAMESPACE, RESTRICTED)
        yield kubernetes


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_helm_lint_passes(values: Path) -> None:
    helm("lint", "--strict", str(CHART), f"--values={values}")


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_api_server_accepts_every_object_strictly(kubernetes: Kubernetes, values: Path) -> None:
    objects = {"apiVersion": "v1", "kind": "List", "items": render(values)}
    words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    kubernetes.kubectl(*words, text=json.dumps(objects))


@pytest.mark.parametrize("component", ["operator", "gateway"])
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_pods_pass_pod_security_restricted(kubernetes: Kubernetes, values: Path, component: str) -> None:
    template = named(render(values), "Deployment", f"trainyard-{component}")["spec"]["template"]
    spec = template["spec"] | {"serviceAccountName": "default"}
    metadata = template["metadata"] | {"name": component, "namespace": NAMESPACE}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    kubernetes.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))
    assert all(entry["securityContext"]["readOnlyRootFilesystem"] for entry in spec["containers"])


def test_namespace_rejects_unrestricted_pods(kubernetes: Kubernetes) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "open", "namespace": NAMESPACE}}
    text = json.dumps(pod | {"spec": {"containers": [{"name": "open", "image": "none"}]}})
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        kubernetes.kubectl("create", "--dry-run=server", "-f", "-", text=text)


def test_values_are_applied() -> None:
    full = render(CHART / "ci" / "full-values.yaml")
    for component in ("operator", "gateway"):
        spec = named(full, "Deployment", f"trainyard-{component}")["spec"]["template"]["spec"]
        assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert spec["priorityClassName"] == "system-cluster-critical"
        assert (spec["imagePullSecrets"], spec["tolerations"][0]["key"]) == ([{"name": "registry"}], "control")
        assert spec["containers"][0]["imagePullPolicy"] == "Always"
        assert environment(spec)["TRAINYARD_LOG_LEVEL"] == "DEBUG"
    operator = named(full, "Deployment", "trainyard-operator")
    assert operator["spec"]["replicas"] == 2
    assert (
        environment(operator["spec"]["template"]["spec"])["TRAINYARD_TRAINER_IMAGE"]
        == "registry.local/trainyard-trainer:1"
    )


def test_service_exposes_the_ports_of_the_gateway() -> None:
    objects = render()
    container = named(objects, "Deployment", "trainyard-gateway")["spec"]["template"]["spec"]["containers"][0]
    listening = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert listening == {
        "https": variables["TRAINYARD_PORT"],
        "api": variables["TRAINYARD_API_PORT"],
        "activator": variables["TRAINYARD_ACTIVATOR_PORT"],
        "health": variables["TRAINYARD_HEALTH_PORT"],
    }
    ports = named(objects, "Service", "trainyard-gateway")["spec"]["ports"]
    assert {port["targetPort"] for port in ports} == {"https", "api", "activator"}


def test_kueue_mode_adds_priority_classes_and_permissions_without_a_policy() -> None:
    words = ("--set=queue.mode=Kueue", "--set=queue.localQueue=gpus")
    objects = render(MINIMAL, *words)
    helm("lint", "--strict", str(CHART), f"--values={MINIMAL}", *words)
    classes = [entry for entry in objects if entry["kind"] == "WorkloadPriorityClass"]
    assert {entry["metadata"]["name"]: entry["value"] for entry in classes} == {
        f"trainyard-p{priority}": priority * 100 for priority in range(11)
    }
    spec = named(objects, "Deployment", "trainyard-operator")["spec"]["template"]["spec"]
    variables = environment(spec)
    assert (variables["TRAINYARD_QUEUE_MODE"], variables["TRAINYARD_LOCAL_QUEUE"]) == ("Kueue", "gpus")
    assert "TRAINYARD_QUEUE_POLICY" not in variables
    assert "volumes" not in spec
    groups = kueue_groups(objects)
    assert groups == {"kueue.x-k8s.io", "visibility.kueue.x-k8s.io"}
    builtin = render()
    assert kueue_groups(builtin) == set()
    assert not [entry for entry in builtin if entry["kind"] == "WorkloadPriorityClass"]


def kueue_groups(objects: list[Object]) -> set[str]:
    rules = named(objects, "ClusterRole", "trainyard-operator")["rules"]
    return {group for rule in rules for group in rule.get("apiGroups", ()) if "kueue" in group}


def environment(spec: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in spec["containers"][0]["env"]}


def crds(objects: list[Object]) -> list[Object]:
    return [entry for entry in objects if entry["kind"] == "CustomResourceDefinition"]


def test_crd_values() -> None:
    kept = {"helm.sh/resource-policy": "keep"}
    assert [entry["metadata"].get("annotations") for entry in crds(render())] == [kept, kept]
    full = crds(render(CHART / "ci" / "full-values.yaml"))
    assert [entry["metadata"].get("annotations") for entry in full] == [None, None]
    assert crds(render(CHART / "ci" / "no-crds-values.yaml")) == []


POOL = '{"name": "a100", "maxNodes": 4, "gpusPerNode": 8, "labels": {"gpu": "a100"}}'


def test_elastic_pools_reach_the_settings_of_the_queue(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    objects = render(MINIMAL, f"--set-json=queue.elasticPools=[{POOL}]")
    path.write_text(named(objects, "ConfigMap", "trainyard-queue")["data"]["policy.json"])
    found = PolicyFile(path).current().elastic_pools
    assert [(pool.name, pool.max_nodes, pool.labels) for pool in found] == [("a100", 4, {"gpu": "a100"})]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("--set=image.operator=",), "image.operator is not set: build Dockerfile.operator"),
        (("--set=image.trainer=",), "image.trainer is not set: build Dockerfile.trainer"),
        (("--set=image.pullPolicy=Sometimes",), "pullPolicy"),
        (("--set=operator.replica=2",), "replica"),
        (("--set=gateway.replicas=2",), "replicas"),
        (("--set=logLevel=loud",), "logLevel"),
        (("--set=queue.mode=kueue",), "mode"),
        (("--set=queue.mode=Kueue", "--set=queue.held=true"), "have no effect with queue.mode=Kueue"),
        (("--set=queue.mode=Kueue", "--set=queue.backfill=true"), "set stopPolicy, queueingStrategy, preemption"),
        (("--set=queue.mode=Kueue", "--set=queue.preemption=true"), "have no effect with queue.mode=Kueue"),
        (("--set=queue.mode=Kueue", "--set=queue.namespaceGpus.team=2"), "have no effect with queue.mode=Kueue"),
        (("--set=queue.mode=Kueue", "--set=queue.defaultNamespaceGpus=0"), "have no effect with queue.mode=Kueue"),
        (("--set=queue.mode=Kueue", f"--set-json=queue.elasticPools=[{POOL}]"), "have no effect with queue.mode=Kueue"),
        (('--set-json=queue.elasticPools=[{"name": "a100"}]',), "maxNodes"),
        (("--set=queue.localQueue=gpus",), "has no effect with queue.mode=Builtin"),
    ],
)
def test_invalid_value_is_named(settings: tuple[str, ...], sentence: str) -> None:
    version = "--kube-version=1.35.0"
    done = helm("template", "trainyard", str(CHART), version, f"--values={MINIMAL}", *settings, check=False)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_watched_namespaces_get_roles_and_no_write_is_cluster_wide() -> None:
    objects = render(MINIMAL, "--set=watchNamespaces={team-a,team-b}", "--set=retention.finishedSeconds=60")
    for role, part in (("trainyard-jobs", "operator"), ("trainyard-progress", "gateway")):
        found = [entry for entry in objects if entry["metadata"]["name"] == role]
        places = sorted(entry["metadata"]["namespace"] for entry in found)
        assert places == ["team-a", "team-a", "team-b", "team-b"]
        rules = named(objects, "ClusterRole", f"trainyard-{part}")["rules"]
        written = [rule for rule in rules if not {"get", "list", "watch"}.issuperset(rule["verbs"])]
        assert [rule["resources"] for rule in written] == ([] if part == "operator" else [["tokenreviews"]])
    assert not [entry for entry in render() if entry["metadata"]["name"] in ("trainyard-jobs", "trainyard-progress")]


def test_older_kubernetes_is_rejected() -> None:
    done = helm("template", "x", str(CHART), "--kube-version=1.30.9", f"--values={MINIMAL}", check=False)
    assert "requires kubeVersion: >=1.31" in done.stderr


def test_install_upgrade_uninstall(kubernetes: Kubernetes) -> None:
    place = (f"--kubeconfig={kubernetes.cluster.kubeconfig}", f"--namespace={NAMESPACE}")
    installed = helm("install", "trainyard", str(CHART), *place, f"--values={MINIMAL}")
    assert "kubectl apply -f" in installed.stdout
    assert "kubectl get tj -w" in installed.stdout
    until(lambda: kubernetes.serves("trainingjobs"))
    job = kubernetes.job("tune", "default")
    before = generation(kubernetes)
    helm("upgrade", "trainyard", str(CHART), *place, f"--values={MINIMAL}")
    assert generation(kubernetes) == before  # unchanged values restart no pod
    helm("upgrade", "trainyard", str(CHART), *place, f"--values={MINIMAL}", "--set=operator.replicas=2")
    assert generation(kubernetes)["trainyard-gateway"] == before["trainyard-gateway"]
    helm("uninstall", "trainyard", *place, "--wait")
    assert job.read()["metadata"]["uid"] == job.uid
    helm("install", "trainyard", str(CHART), *place, f"--values={MINIMAL}")
    assert job.read()["metadata"]["uid"] == job.uid
    check_permissions(kubernetes)
    helm("uninstall", "trainyard", *place, "--wait")


def generation(kubernetes: Kubernetes) -> dict[str, Any]:
    deployments = json.loads(kubernetes.kubectl("get", "deployments", "-n", NAMESPACE, "-o", "json"))["items"]
    return {entry["metadata"]["name"]: entry["metadata"]["generation"] for entry in deployments}


def check_permissions(kubernetes: Kubernetes) -> None:
    """Check that users get permissions by built-in roles, and operator and gateway only what they use."""
    for user, role in (("eve", "edit"), ("vic", "view")):
        kubernetes.kubectl("create", "rolebinding", user, "-n", "default", f"--clusterrole={role}", f"--user={user}")
    until(lambda: may(kubernetes, "vic", "get", "trainingjobs.trainyard.dev"))
    until(lambda: may(kubernetes, "eve", "create", "trainingjobs.trainyard.dev"))
    assert not may(kubernetes, "eve", "patch", "trainingjobs.trainyard.dev/status")
    assert not may(kubernetes, "vic", "create", "trainingjobs.trainyard.dev")
    operator, gateway = (f"system:serviceaccount:{NAMESPACE}:trainyard-{part}" for part in ("operator", "gateway"))
    until(lambda: may(kubernetes, operator, "create", "jobs.batch"))
    until(lambda: may(kubernetes, operator, "get", "secrets/trainyard-ca", NAMESPACE))
    for account, verb, resource, namespace in (
        (operator, "get", "secrets", "default"),
        (operator, "list", "secrets", NAMESPACE),
        (operator, "get", "secrets/other", NAMESPACE),
        (operator, "update", "trainingjobs.trainyard.dev", "default"),
        (operator, "delete", "trainingjobs.trainyard.dev", "default"),
        (operator, "patch", "secrets", "default"),
        (operator, "update", "pods", "default"),
        (operator, "update", "deployments.apps", "default"),
        (gateway, "get", "pods", "default"),
        (gateway, "get", "secrets/trainyard-gateway-tls", NAMESPACE),
        (gateway, "patch", "trainingjobs.trainyard.dev", "default"),
    ):
        assert not may(kubernetes, account, verb, resource, namespace), (
            f"{account} may {verb} {resource} in {namespace}"
        )


def may(kubernetes: Kubernetes, user: str, verb: str, target: str, namespace: str = "default") -> bool:
    """Review access to `target`: resource[.group][/subresource] or, in the core group, resource/name."""
    resource, _, rest = target.partition("/")
    resource, _, group = resource.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
    attributes |= {"subresource" if group else "name": rest} if rest else {}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    reviewed = json.loads(kubernetes.kubectl("create", "-o", "json", "-f", "-", text=json.dumps(review)))
    return bool(reviewed["status"]["allowed"])
