"""ModelDeployments against a real API server, Deployment controller and garbage collector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.api.modeldeployment_support import Replica, deploy, replica, trained
from tests.api.operator_support import USER, Operator, Team, requests_by
from trainyard_crds.serving import ADAPTER_SET_ANNOTATION

pytestmark = pytest.mark.api


@pytest.fixture
def proxy() -> Iterator[Replica]:
    with replica() as found:
        yield found


def test_waits_for_the_job_and_serves_it(operator: Operator, team: Team, proxy: Replica) -> None:
    job = team.create("tune", method="lora")
    served = deploy(team, "bot", model={"from": {"trainingJob": "tune"}})
    status = served.wait("Ready", "WaitingForTrainingJob")
    assert status["observedGeneration"] == 1
    assert served.condition("Reconciling")["status"] == "True"
    assert team.names("deployments", "apps/v1") == []
    digest = trained(job)
    pod = served.start(proxy)
    status = served.wait("Ready", "Serving")
    team.kubernetes.kubectl("wait", "-n", team.namespace, "md/bot", "--for=condition=Ready", "--timeout=60s")
    until(lambda: served.condition("Reconciling")["status"] == "False")
    [adapter] = served.status()["adapters"]
    assert (adapter["name"], adapter["digest"], adapter["state"]) == ("bot", digest, "Loaded")
    assert status["url"] == f"http://bot.{team.namespace}.svc:8000"
    assert "bot" in team.names("services")
    assert pod["metadata"]["name"].startswith(served.child_name)


def test_adapter_is_added_without_another_template(operator: Operator, team: Team, proxy: Replica) -> None:
    trained(team.create("tune", method="lora"))
    served = deploy(team, "bot", model={"source": "pvc://models/tiny"})
    pod = served.start(proxy)
    served.wait("Ready", "Serving")
    before = served.deployment()["spec"]["template"]
    served.patch(adapters=[{"name": "tuned", "from": {"trainingJob": "tune"}}])
    until(lambda: served.adapter_set().adapters)
    version = served.adapter_set().version
    path = f"/api/v1/namespaces/{team.namespace}/pods/{pod['metadata']['name']}"
    until(lambda: served.client.get(path)["metadata"]["annotations"].get(ADAPTER_SET_ANNOTATION) == version)
    served.wait("AdaptersReady", "AdaptersLoading")
    proxy.adapters = served.adapter_set()
    served.wait("AdaptersReady", "AdaptersLoaded")
    assert served.deployment()["spec"]["template"] == before
    assert [each["metadata"]["name"] for each in served.pods()] == [pod["metadata"]["name"]]
    served.patch(adapters=None)
    until(lambda: served.adapter_set().adapters == [])


def test_scaled_and_stopped_by_users_only(operator: Operator, team: Team, proxy: Replica) -> None:
    served = deploy(team, "bot")
    served.start(proxy)
    served.wait("Ready", "Serving")
    team.kubernetes.kubectl("scale", "-n", team.namespace, "md/bot", "--replicas=0")
    served.wait("Ready", "ScaledToZero")
    until(lambda: served.deployment()["spec"]["replicas"] == 0)
    served.patch(replicas=2, stopped=True)
    served.wait("Ready", "Stopped")
    assert served.read()["spec"]["replicas"] == 2
    served.patch(stopped=False)
    until(lambda: served.deployment()["spec"]["replicas"] == 2)
    managers = [
        entry["manager"]
        for entry in team.kubernetes.client.get(served.path)["metadata"]["managedFields"]
        if "f:spec" in entry["fieldsV1"]
    ]
    assert "trainyard" not in managers


def test_idle_costs_no_requests(operator: Operator, control_plane: Kubernetes, team: Team, proxy: Replica) -> None:
    served = deploy(team, "bot")
    served.start(proxy)
    served.wait("Ready", "Serving")
    until(lambda: served.condition("Reconciling")["status"] == "False")
    version = served.read()["metadata"]["resourceVersion"]
    before, asked = len(control_plane.audit()), proxy.asked
    # A label makes the operator reconcile it again, which asks the replica and must write nothing.
    control_plane.kubectl("label", "-n", team.namespace, "md/bot", "seen=yes")
    until(lambda: proxy.asked > asked)
    team.create("witness").run()
    made = [
        (entry["verb"], entry["objectRef"]["resource"], entry["objectRef"].get("name"))
        for entry in requests_by(control_plane, USER, before)
        if (about := entry.get("objectRef", {})).get("namespace") == team.namespace and about.get("name") == "bot"
    ]
    assert made == []
    assert served.read()["metadata"]["resourceVersion"] != version  # the label alone


def test_foreign_service_keeps_its_name(operator: Operator, team: Team) -> None:
    team.kubernetes.kubectl("create", "service", "clusterip", "bot", "-n", team.namespace, "--tcp=80")
    served = deploy(team, "bot")
    status = served.wait("Ready", "NameTaken")
    assert "A Service bot exists" in status["message"]
    team.kubernetes.kubectl("delete", "service", "bot", "-n", team.namespace)
    served.deployment()


HTTP_ROUTES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "httproutes.gateway.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "HTTPRoute", "plural": "httproutes"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""The name of the kind without its schema: the Gateway API is not installed here."""


def test_route_is_applied_once_the_gateway_api_is_there(operator: Operator, team: Team, proxy: Replica) -> None:
    served = deploy(team, "bot", route={"gateway": {"name": "public"}, "hostnames": ["chat.example.com"]})
    served.start(proxy)
    served.wait("RouteReady", "GatewayApiMissing")
    served.wait("Ready", "Serving")
    team.kubernetes.apply(HTTP_ROUTES)
    served.wait("RouteReady", "RouteApplied")
    assert team.names("httproutes", "gateway.networking.k8s.io/v1") == [served.child_name]


def test_deleted_deployment_leaves_nothing(operator: Operator, team: Team) -> None:
    served = deploy(team, "bot", replicas=2)
    served.deployment()
    until(lambda: team.names("poddisruptionbudgets", "policy/v1"))
    served.client.delete(served.path)
    until(lambda: not (team.names("pods") or team.names("services") or team.names("deployments", "apps/v1")))
    until(lambda: not any(name.startswith("bot-") for name in team.names("configmaps")))


def has_child(team: Team, plural: str, group: str) -> bool:
    return any(name.startswith("bot") for name in team.names(plural, group))


def test_operator_killed_between_its_writes_ends_in_the_same_state(
    operator: Operator, team: Team, proxy: Replica
) -> None:
    trained(team.create("tune", method="lora"))
    served = deploy(team, "bot", model={"from": {"trainingJob": "tune"}}, replicas=1)
    for plural, group in (("configmaps", "v1"), ("services", "v1"), ("deployments", "apps/v1")):
        until(partial(has_child, team, plural, group))
        operator.kill()
        operator.restart()
    served.start(proxy)
    served.wait("Ready", "Serving")
    operator.kill()
    served.patch(adapters=[{"name": "other", "from": {"trainingJob": "tune"}}])
    operator.restart()
    until(lambda: len(served.adapter_set().adapters) == 2)
    proxy.adapters = served.adapter_set()
    until(lambda: json.dumps(served.status()["adapters"]).count('"Loaded"') == 2)
    assert len(team.names("deployments", "apps/v1")) == 1
    assert [name for name in team.names("services") if not name.startswith("artifacts-")] == ["bot"]
    configs = [name for name in team.names("configmaps") if name.startswith(served.child_name)]
    assert len(configs) == 2, configs
