"""The gateway's REST API against a real API server, with real tokens and RBAC."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import FOREIGN, NAMESPACE, Gateway, Kubernetes, control_plane, until
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.api
LIST = f"/apis/v1/namespaces/{NAMESPACE}/trainingjobs"
DEPLOYMENTS = f"/apis/v1/namespaces/{NAMESPACE}/modeldeployments"
SERVICE_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:default"


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with control_plane(f"test-gateway-api-{os.getpid()}") as kubernetes:
        # The viewer role of the chart, granted to the default account of one namespace.
        resources = ["trainingjobs", "modeldeployments"]
        rules = [{"apiGroups": ["trainyard.dev"], "resources": resources, "verbs": ["get", "list", "watch"]}]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
        kubernetes.apply(role | {"metadata": {"name": "trainyard-viewer"}, "rules": rules})
        kubernetes.kubectl(
            "create", "rolebinding", "viewer", "-n", NAMESPACE, "--clusterrole=trainyard-viewer",
            f"--serviceaccount={NAMESPACE}:default",
        )  # fmt: skip
        yield kubernetes


@pytest.fixture(scope="module")
def gateway(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(kubernetes, tmp_path_factory.mktemp("gateway")).wait_until_ready()
    yield gateway
    assert gateway.stop() == 0


@pytest.fixture(scope="module")
def token(kubernetes: Kubernetes) -> str:
    """A token of the namespace's default account for the API server itself."""
    return kubernetes.kubectl("create", "token", "default", "-n", NAMESPACE)


def test_service_account_reads_the_trainingjobs_of_its_namespace(
    gateway: Gateway, kubernetes: Kubernetes, token: str
) -> None:
    jobs = [kubernetes.job(f"tune-{number}") for number in range(3)]
    jobs[1].patch_status(phase="Running", message="training")
    listed = until(lambda: (response := gateway.get(LIST, token)).code == 200 and response)
    assert listed.headers["x-total-count"] == "3"
    assert listed.body["total"] == 3
    assert {item["metadata"]["name"] for item in listed.body["items"]} == {job.name for job in jobs}
    page = gateway.get(f"{LIST}?limit=2&offset=2", token).body
    assert (len(page["items"]), page["total"]) == (1, 3)
    running = gateway.get(f"{LIST}?phase=Running", token).body
    assert [item["metadata"]["uid"] for item in running["items"]] == [jobs[1].uid]
    detail = gateway.get(f"{LIST}/tune_1", token)
    expected = jobs[1].read()
    del expected["metadata"]["managedFields"]
    assert (detail.code, detail.body) == (200, expected)
    assert token not in gateway.log_text()


def test_service_account_reads_the_modeldeployments_of_its_namespace(
    gateway: Gateway, kubernetes: Kubernetes, token: str
) -> None:
    head = {"apiVersion": "trainyard.dev/v1alpha1", "kind": "ModelDeployment"}
    spec = {"model": {"source": "hf://Qwen/Qwen3-0.6B"}}
    names = ("chat", "support-chat")
    kubernetes.apply(*({**head, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec} for name in names))
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]
    patch = json.dumps({"status": {"conditions": conditions}})
    kubernetes.kubectl("patch", "md", "chat", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch)
    listed = until(lambda: (response := gateway.get(DEPLOYMENTS, token)).code == 200 and response)
    assert {item["metadata"]["name"] for item in listed.body["items"]} == set(names)
    ready = gateway.get(f"{DEPLOYMENTS}?ready=true", token).body
    assert [item["metadata"]["name"] for item in ready["items"]] == ["chat"]
    detail = gateway.get(f"{DEPLOYMENTS}/support_chat", token).body
    assert (detail["kind"], detail["spec"]["replicas"]) == ("ModelDeployment", 1)
    forbidden = gateway.get(f"/apis/v1/namespaces/{FOREIGN}/modeldeployments", token)
    assert forbidden.code == 403
    assert f'User "{SERVICE_ACCOUNT}" cannot list resource "modeldeployments"' in forbidden.body["detail"]


def test_other_namespaces_and_objects_are_refused_by_the_api_server(gateway: Gateway, token: str) -> None:
    forbidden = gateway.get(f"/apis/v1/namespaces/{FOREIGN}/trainingjobs", token)
    assert forbidden.code == 403
    assert f'User "{SERVICE_ACCOUNT}" cannot list resource "trainingjobs"' in forbidden.body["detail"]
    missing = gateway.get(f"{LIST}/ghost", token)
    assert (missing.code, missing.body) == (404, {"detail": 'trainingjobs.trainyard.dev "ghost" not found'})


def test_missing_and_invalid_tokens_are_unauthorized(gateway: Gateway, token: str) -> None:
    for bad in (None, "garbage", token[:-8] + "AAAAAAAA"):
        response = gateway.get(LIST, bad)
        assert (response.code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert response.body["detail"]


def test_users_do_not_get_the_gateways_permissions(kubernetes: Kubernetes, tmp_path: Path, token: str) -> None:
    """Even if the gateway runs with the client certificate of a cluster administrator."""
    gateway = Gateway(kubernetes, tmp_path, through=lambda _: kubernetes.cluster.kubeconfig).wait_until_ready()
    try:
        assert gateway.get(f"/apis/v1/namespaces/{SYSTEM}/trainingjobs", token).code == 403
        assert gateway.get(LIST, "garbage").code == 401
    finally:
        assert gateway.stop() == 0


def test_unreachable_api_server_is_unavailable(kubernetes: Kubernetes, tmp_path: Path, token: str) -> None:
    with Proxy(kubernetes.cluster.server, kubernetes.cluster.ca, tmp_path) as proxy:
        gateway = Gateway(kubernetes, tmp_path, through=proxy.kubeconfig).wait_until_ready()
        try:
            assert gateway.get(LIST, token).code == 200
            proxy.down = True
            response = gateway.get(LIST, token)
            assert (response.code, response.headers["retry-after"]) == (503, "5")
            assert "the Kubernetes API server cannot serve the request now" in response.body["detail"]
        finally:
            proxy.down = False
            assert gateway.stop() == 0
