"""Admitted jobs that cannot start, on a real control plane: policies, webhooks, quotas, limits and nodes refuse them.

Real scheduler and Job controller, one fake node of 8 GPUs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import Operator, leading
from tests.api.queue_support import QueueCluster
from tests.api.webhook_support import Webhook

Object = dict[str, Any]
CLAIM, TEAM, OTHER = "models", "admission-team", "admission-other"
JOBS = ("batch", "v1", "jobs")
NODE = "/api/v1/nodes/kwok-0"


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with kwok_support.control_plane(f"test-admission-{os.getpid()}", nodes=1, seconds={}) as kubernetes:
        for namespace in (TEAM, OTHER):
            kwok_support.prepare_namespace(kubernetes, namespace, CLAIM)
        yield kubernetes


@pytest.fixture(scope="module")
def operator(kubernetes: Kubernetes, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    with leading(Operator(kubernetes, folder, "admission", TRAINYARD_QUEUE_POLICY=str(policy))) as operator:
        yield operator


@pytest.fixture
def team(kubernetes: Kubernetes, operator: Operator, policy: Path) -> Iterator[QueueCluster]:
    yield from emptied(QueueCluster(kubernetes, operator, TEAM, CLAIM), policy)


@pytest.fixture
def other(kubernetes: Kubernetes, operator: Operator, policy: Path) -> Iterator[QueueCluster]:
    yield from emptied(QueueCluster(kubernetes, operator, OTHER, CLAIM), policy)


def emptied(cluster: QueueCluster, policy: Path) -> Iterator[QueueCluster]:
    """A namespace whose jobs are deleted and whose GPUs are free after the test."""
    policy.write_text("{}")
    yield cluster
    cluster.history.stop()
    policy.write_text("{}")
    cluster.kubernetes.kubectl("delete", "trainingjobs", "--all", "-n", cluster.namespace, "--wait=true")
    until(lambda: not cluster.pods())


def test_denied_job_says_why_and_gives_its_gpus_back(
    team: QueueCluster, other: QueueCluster, policy: Path, tmp_path: Path
) -> None:
    policy.write_text('{"startSeconds": 5}')
    webhook = Webhook(team.kubernetes, TEAM, tmp_path, {"jobs.closed.example": JOBS})
    webhook.register()
    try:
        with webhook.denying(by_name):
            for code in (409, 429, 500):
                team.submit(f"denied-{code}", 2)
            other.submit("whole-node", 8)
            for code in (409, 429, 500):
                pending = team.wait(f"denied-{code}", "Pending")
                assert f"denied the request: closed with {code}" in pending["message"]
                assert "reason" not in pending["queue"]
                queued = team.wait(f"denied-{code}", "Queued", "BackingOff")
                assert f"denied the request: closed with {code}" in queued["message"]
                assert queued["queue"]["failedStarts"]["seconds"] == 0
            other.wait("whole-node", "Running")
    finally:
        webhook.unregister()


def by_name(job: Object) -> Object:
    """Deny a Job with the code in its name, and let a client wait for minutes where the code means that."""
    code = int(job["metadata"]["name"].split("-")[1])
    return {"code": code, "message": f"closed with {code}", "details": {"retryAfterSeconds": 300}}


def test_job_that_a_policy_denies_as_invalid_is_tried_until_the_policy_allows_it(team: QueueCluster) -> None:
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": TEAM}}
    spec = {
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
        "validations": [{"expression": "false", "message": "maintenance until 18:00"}],
    }
    named = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "maintenance"}}
    binding = {"policyName": "maintenance", "validationActions": ["Deny"]}
    team.kubernetes.apply(
        {**named, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**named, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    )
    try:
        until(partial(is_denied, team))
        team.submit("patient", 1)
        pending = team.wait("patient", "Pending")
        assert pending["conditions"][0]["status"] == "True"
        assert pending["message"].endswith("denied request: maintenance until 18:00")
    finally:
        team.kubernetes.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "maintenance")
    team.wait("patient", "Running")


def is_denied(team: QueueCluster) -> bool:
    """Return whether the API server applies the policy, which takes it a moment."""
    try:
        team.kubernetes.kubectl("create", "job", "probe", "--image=x", "-n", TEAM, "--dry-run=server")
    except AssertionError as error:
        return "maintenance" in str(error)
    return False


@pytest.fixture
def claims(team: QueueCluster) -> Iterator[Callable[[int], None]]:
    """Limit the number of claims in the namespace; removed after the test."""
    path = f"/api/v1/namespaces/{TEAM}/resourcequotas/claims"

    def limit(count: int) -> None:
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "claims", "namespace": TEAM}}
        team.client.apply(path, {**body, "spec": {"hard": {"persistentvolumeclaims": str(count)}}})
        until(lambda: (team.client.get(path).get("status") or {}).get("used"))

    yield limit
    team.kubernetes.kubectl("delete", "resourcequota", "claims", "-n", TEAM, "--ignore-not-found")
    team.kubernetes.kubectl("delete", "pvc", "-l", "trainyard.dev/role=train", "-n", TEAM)


def test_full_claim_quota_is_reported_before_any_gpu_is_promised(
    team: QueueCluster, other: QueueCluster, claims: Callable[[int], None]
) -> None:
    claims(1)
    other.submit("first", 8)
    other.wait("first", "Running")
    for name, gpus in (("new-claim", 8), ("cpu-only", 0)):
        team.submit(name, gpus, storage={"size": "1Gi"})
        found = team.wait(name, "Queued", "QuotaExceeded")
        assert found["message"] == (
            f"Namespace {TEAM} may use 1 persistentvolumeclaims (ResourceQuota claims) and uses 1; this job needs 1."
        )
    other.delete("first")
    other.submit("second", 8)
    other.wait("second", "Running")
    other.delete("second")
    until(lambda: not other.pods())
    claims(2)
    until(lambda: "jobName" in team.status("new-claim"))
    team.wait("cpu-only", "Queued", "QuotaExceeded")


def test_claim_that_exists_already_needs_no_quota(
    team: QueueCluster, claims: Callable[[int], None], tmp_path: Path
) -> None:
    webhook = Webhook(team.kubernetes, TEAM, tmp_path, {"jobs.closed.example": JOBS})
    webhook.register()
    try:
        with webhook.denying(lambda _: {"code": 403, "message": "closed"}):
            team.submit("denied", 1, storage={"size": "1Gi"})
            pending = team.wait("denied", "Pending")
            assert pending["runUri"].startswith("pvc://denied-")
            claims(2)
            team.operator.kill()  # with it the admission is lost
            team.operator.restart()
    finally:
        webhook.unregister()
    until(lambda: "jobName" in team.status("denied"))


def test_tainted_node_counts_for_the_jobs_that_can_use_it_only(team: QueueCluster) -> None:
    taints = team.client.get(NODE)["spec"]["taints"]
    ours = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    team.client.patch(NODE, {"spec": {"taints": [*taints, ours]}})
    try:
        team.submit("plain", 8)
        team.wait("plain", "Running")
        team.delete("plain")
        team.client.patch(NODE, {"spec": {"taints": [*taints, {"key": "dedicated", "effect": "NoExecute"}]}})
        team.submit("intolerant", 8)
        found = team.wait("intolerant", "Queued", "ExceedsCapacity")
        assert "to it: 1 node with the taint dedicated:NoExecute; check spec.resources" in found["message"]
        everything = kwok_support.training_job(TEAM, "x", claim=CLAIM, gpus=8)["spec"]["resources"]
        team.submit("tolerant", 8, resources={**everything, "tolerations": [{"operator": "Exists"}]})
        team.wait("tolerant", "Running")
    finally:
        team.client.patch(NODE, {"spec": {"taints": taints}})


A100 = {"type": "kwok", "pool": "a100"}


def declare(policy: Path, operator: Operator, **pool: Any) -> None:
    """Declare an elastic pool and wait until the operator uses it."""
    taint = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
    whole = {"name": "a100", "maxNodes": 1, "gpusPerNode": 8, "labels": A100, "taints": [taint], **pool}
    policy.write_text(json.dumps({"elasticPools": [whole]}))
    until(lambda: operator.get_json("/queue")["settings"]["elasticPools"])


def on_a100(gpus: int) -> Object:
    resources = kwok_support.training_job(TEAM, "x", claim=CLAIM, gpus=gpus)["spec"]["resources"]
    return {**resources, "nodeSelector": A100}


def test_pool_that_an_autoscaler_grows_from_zero_takes_jobs_in_order(team: QueueCluster, policy: Path) -> None:
    declare(policy, team.operator)
    team.submit("first", resources=on_a100(8))
    waits = team.wait("first", "Starting")
    assert waits["message"].startswith(
        "The nodes have no room; its pods wait for the autoscaler to add one: a100 (0 of at most 1 nodes). No node can "
        "take the pod: 0/1 nodes are available"
    )
    running = next(one for one in waits["conditions"] if one["type"] == "Running")
    assert (running["status"], running["reason"]) == ("False", "WaitingForNodes")
    team.submit("second", resources=on_a100(8))
    team.submit("huge", resources=on_a100(16))
    second = team.wait("second", "Queued", "WaitingForGpus", position=1, length=1)
    assert second["message"] == "It needs 8 GPUs on one node; the most free is 0."
    huge = team.wait("huge", "Queued", "ExceedsCapacity")
    assert "the largest node of nvidia.com/gpu (pool=a100,type=kwok) has 8" in huge["message"]
    team.submit("elsewhere", 8)
    team.wait("elsewhere", "Running")
    with kwok_support.autoscaler(team.kubernetes, "a100", A100, 1):
        team.wait("first", "Running")
        assert team.status("second")["phase"] == "Queued"
        team.delete("first")
        team.wait("second", "Running")
        assert [pod["spec"]["nodeName"] for pod in team.pods() if "second" in pod["metadata"]["name"]] == ["a100-0"]
        team.delete("second")
        until(lambda: len(team.pods()) == 1)


def test_job_for_which_no_node_comes_makes_way(team: QueueCluster, policy: Path) -> None:
    declare(policy, team.operator, startSeconds=5)
    team.submit("first", resources=on_a100(8))
    team.wait("first", "Starting")
    team.submit("second", resources=on_a100(8))
    queued = team.wait("first", "Queued", "BackingOff")
    assert "a100 (0 of at most 1 nodes)" in queued["message"]
    assert queued["queue"]["failedStarts"]["seconds"] == 0
    team.wait("second", "Starting")
    assert team.child("first")["spec"]["suspend"] is True


def test_pod_that_a_limit_range_refuses_is_named(team: QueueCluster) -> None:
    limits = [{"type": "Container", "max": {"memory": "32Mi"}}]
    named = {"metadata": {"name": "small", "namespace": TEAM}}
    team.kubernetes.apply({"apiVersion": "v1", "kind": "LimitRange", **named, "spec": {"limits": limits}})
    try:
        team.submit("large", 1)
        found = team.history.wait("large", lambda status: "gets no pod" in status.get("message", ""))
        assert "gets no pod: the pod is forbidden: maximum memory usage per Container is 32Mi" in found["message"]
    finally:
        team.kubernetes.kubectl("delete", "limitrange", "small", "-n", TEAM)
