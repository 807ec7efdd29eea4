"""The chart: rendered by Helm, taken by a real API server, installed, upgraded and removed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.chart_support import CHART, MINIMAL, NAMESPACE, Object, helm, named, render
from tests.api.gateway_support import RESTRICTED, Kubernetes, plane, until

pytestmark = pytest.mark.api

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with plane(f"test-chart-{os.getpid()}", first=lambda _: None) as kubernetes:
        kubernetes.namespace(NAMESPACE, RESTRICTED)
        yield kubernetes


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_helm_finds_nothing_to_complain_about(values: Path) -> None:
    helm("lint", "--strict", str(CHART), f"--values={values}")


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_api_server_takes_every_object_with_no_unknown_field(kubernetes: Kubernetes, values: Path) -> None:
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


def test_the_namespace_does_refuse_other_pods(kubernetes: Kubernetes) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "open", "namespace": NAMESPACE}}
    text = json.dumps(pod | {"spec": {"containers": [{"name": "open", "image": "none"}]}})
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        kubernetes.kubectl("create", "--dry-run=server", "-f", "-", text=text)


def test_values_reach_what_they_name() -> None:
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


def test_kueue_mode_brings_its_priority_classes_and_permissions_and_no_policy() -> None:
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
    return {group for rule in rules for group in rule["apiGroups"] if "kueue" in group}


def environment(spec: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in spec["containers"][0]["env"]}


def crds(objects: list[Object]) -> list[Object]:
    return [entry for entry in objects if entry["kind"] == "CustomResourceDefinition"]


def test_the_crd_guards() -> None:
    kept = {"helm.sh/resource-policy": "keep"}
    assert [entry["metadata"].get("annotations") for entry in crds(render())] == [kept]
    assert [entry["metadata"].get("annotations") for entry in crds(render(CHART / "ci" / "full-values.yaml"))] == [None]
    assert crds(render(CHART / "ci" / "no-crds-values.yaml")) == []


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
        (("--set=queue.localQueue=gpus",), "has no effect with queue.mode=Builtin"),
    ],
)
def test_a_wrong_value_is_refused_by_name(settings: tuple[str, ...], sentence: str) -> None:
    version = "--kube-version=1.35.0"
    done = helm("template", "trainyard", str(CHART), version, f"--values={MINIMAL}", *settings, check=False)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_an_older_kubernetes_is_refused() -> None:
    done = helm("template", "x", str(CHART), "--kube-version=1.30.9", f"--values={MINIMAL}", check=False)
    assert "requires kubeVersion: >=1.31" in done.stderr


def test_install_upgrade_uninstall(kubernetes: Kubernetes) -> None:
    place = (f"--kubeconfig={kubernetes.cluster.kubeconfig}", f"--namespace={NAMESPACE}")
    installed = helm("install", "trainyard", str(CHART), *place, f"--values={MINIMAL}")
    assert "kubectl apply -f" in installed.stdout
    assert "kubectl get tj -w" in installed.stdout
    until(kubernetes.serves_trainingjobs)
    job = kubernetes.job("tune", "default")
    before = generation(kubernetes)
    helm("upgrade", "trainyard", str(CHART), *place, f"--values={MINIMAL}")
    assert generation(kubernetes) == before  # the same values restart nothing
    helm("upgrade", "trainyard", str(CHART), *place, f"--values={MINIMAL}", "--set=operator.replicas=2")
    assert generation(kubernetes)["trainyard-gateway"] == before["trainyard-gateway"]
    helm("uninstall", "trainyard", *place, "--wait")
    assert job.read()["metadata"]["uid"] == job.uid
    helm("install", "trainyard", str(CHART), *place, f"--values={MINIMAL}")
    assert job.read()["metadata"]["uid"] == job.uid
    who_may_what(kubernetes)
    helm("uninstall", "trainyard", *place, "--wait")


def generation(kubernetes: Kubernetes) -> dict[str, Any]:
    deployments = json.loads(kubernetes.kubectl("get", "deployments", "-n", NAMESPACE, "-o", "json"))["items"]
    return {entry["metadata"]["name"]: entry["metadata"]["generation"] for entry in deployments}


def who_may_what(kubernetes: Kubernetes) -> None:
    """People by the built-in roles; operator and gateway nothing beyond their work."""
    for person, role in (("eve", "edit"), ("vic", "view")):
        kubernetes.kubectl(
            "create", "rolebinding", person, "-n", "default", f"--clusterrole={role}", f"--user={person}"
        )
    until(lambda: may(kubernetes, "vic", "get", "trainingjobs.trainyard.dev"))
    until(lambda: may(kubernetes, "eve", "create", "trainingjobs.trainyard.dev"))
    assert not may(kubernetes, "eve", "patch", "trainingjobs.trainyard.dev/status")
    assert not may(kubernetes, "vic", "create", "trainingjobs.trainyard.dev")
    operator, gateway = (f"system:serviceaccount:{NAMESPACE}:trainyard-{part}" for part in ("operator", "gateway"))
    until(lambda: may(kubernetes, operator, "create", "jobs.batch"))
    until(lambda: may(kubernetes, operator, "get", "secrets/trainyard-ca", NAMESPACE))
    for who, verb, what, namespace in (
        (operator, "get", "secrets", "default"),
        (operator, "list", "secrets", NAMESPACE),
        (operator, "get", "secrets/other", NAMESPACE),
        (operator, "patch", "trainingjobs.trainyard.dev", "default"),
        (operator, "create", "pods", "default"),
        (gateway, "get", "pods", "default"),
        (gateway, "get", "secrets/trainyard-gateway-tls", NAMESPACE),
        (gateway, "patch", "trainingjobs.trainyard.dev", "default"),
    ):
        assert not may(kubernetes, who, verb, what, namespace), f"{who} may {verb} {what} in {namespace}"


def may(kubernetes: Kubernetes, who: str, verb: str, what: str, namespace: str = "default") -> bool:
    """Ask the API server; `what` is resource[.group][/subresource] or, in the core group, resource/name."""
    resource, _, rest = what.partition("/")
    resource, _, group = resource.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
    attributes |= {"subresource" if group else "name": rest} if rest else {}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "resourceAttributes": attributes},
    }
    answer = json.loads(kubernetes.kubectl("create", "-o", "json", "-f", "-", text=json.dumps(review)))
    return bool(answer["status"]["allowed"])
