"""A job on several nodes on a real control plane: admitted and restarted whole, ended by its first pod."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import Operator, leading, termination
from trainyard_crds.constants import JOB_UID_LABEL, ROLE_LABEL, service_name
from trainyard_kube.errors import NotFoundError
from trainyard_operator.trainingjob.children.gang import INDEX_LABEL, service
from trainyard_operator.trainingjob.children.render import owner_reference

pytestmark = pytest.mark.api
Object = dict[str, Any]
NAMESPACE, CLAIM = "gangs", "models"
ROOT = f"/api/v1/namespaces/{NAMESPACE}"
TRAINING_JOBS = f"/apis/trainyard.dev/v1alpha1/namespaces/{NAMESPACE}/trainingjobs"
PEER_LOST = {"outcome": "Failed", "exitCode": 76, "reason": "PeerLost", "message": "A peer was lost.", "step": 40}
CRASHED = {"outcome": "Failed", "exitCode": 70, "reason": "InternalError", "message": "An index was out of range."}

FINISHED = termination("Finished", step=100, message="Training finished after 100 steps.")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GangCluster]:
    with kwok_support.control_plane(f"test-gang-{os.getpid()}", nodes=2, seconds={}) as kubernetes:
        kwok_support.prepare_namespace(kubernetes, NAMESPACE, CLAIM)
        with leading(Operator(kubernetes, tmp_path_factory.mktemp("operator"), "gang")):
            yield GangCluster(kubernetes)


class GangCluster:
    """TrainingJobs whose pods a test ends."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes, self.client = kubernetes, kubernetes.client

    def submit(self, name: str, gpus: int, nodes: int = 1, claim: str = CLAIM) -> None:
        body = kwok_support.training_job(NAMESPACE, name, claim=CLAIM, gpus=gpus, storage={"claimName": claim})
        body["spec"]["resources"]["nodes"] = nodes
        self.client.apply(f"{TRAINING_JOBS}/{name}", body)

    def status(self, name: str) -> Object:
        found: Object = self.client.get(f"{TRAINING_JOBS}/{name}").get("status", {})
        return found

    def wait(self, name: str, phase: str, attempts: int = 0) -> Object:
        def is_so() -> bool:
            status = self.status(name)
            return status.get("phase") == phase and len(status.get("attempts", [])) >= attempts

        until(is_so)
        return self.status(name)

    def child(self, name: str) -> Object:
        job = self.status(name)["jobName"]
        found: Object = self.client.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}")
        return found

    def pods(self, name: str) -> list[Object]:
        """Pods of a job that have not ended, by their index."""
        found = self.client.get(f"{ROOT}/pods?labelSelector=trainyard.dev%2Ftrainingjob%3D{name}")["items"]
        live = [pod for pod in found if pod["status"].get("phase") not in ("Succeeded", "Failed")]
        return sorted(live, key=lambda pod: str(pod["metadata"]["labels"].get(INDEX_LABEL)))

    def end(self, pod: Object, code: int, message: str) -> None:
        """End the container of a pod."""
        notes = {"trainyard.test/exit-code": str(code), "trainyard.test/termination-message": message}
        self.client.patch(f"{ROOT}/pods/{pod['metadata']['name']}", {"metadata": {"annotations": notes}})

    def is_there(self, path: str) -> bool:
        try:
            self.client.get(path)
        except NotFoundError:
            return False
        return True


def test_gang_is_admitted_and_restarted_whole_and_ends_with_its_first_pod(cluster: GangCluster) -> None:
    cluster.submit("one", 8)
    cluster.wait("one", "Running")
    cluster.submit("gang", 8, nodes=2)
    waiting = cluster.wait("gang", "Queued")
    assert waiting["message"] == "It needs 8 GPUs for each of 2 pods; there is room for 1 of them."
    assert waiting["summary"]["gpus"] == "16"
    made_before = a_service_of_a_killed_operator(cluster, "gang")
    cluster.end(cluster.pods("one")[0], 0, FINISHED)
    cluster.wait("gang", "Running")
    assert cluster.client.get(made_before["path"])["metadata"]["uid"] == made_before["uid"], "it was adopted"
    first, second = cluster.pods("gang")
    check_addresses(cluster, first, second)

    uid = cluster.child("gang")["metadata"]["uid"]
    cluster.end(second, 70, json.dumps(CRASHED))
    cluster.end(first, 76, json.dumps(PEER_LOST))
    restarted = cluster.wait("gang", "Running", attempts=2)
    found = restarted["attempts"][0]
    assert (found["exitCode"], found["reason"]) == (76, "InternalError")
    where = f"Pod {second['metadata']['name']} on node {second['spec']['nodeName']}"
    assert found["message"] == f"{where}: An index was out of range."
    assert (restarted["attemptCounts"]["failed"], restarted["attemptCounts"]["total"]) == (1, 2)
    assert cluster.child("gang")["metadata"]["uid"] == uid

    first, second = until(lambda: len(pods := cluster.pods("gang")) == 2 and pods)
    cluster.end(first, 0, FINISHED)
    done = cluster.wait("gang", "Succeeded")
    assert done["message"] == "Training finished after 100 steps."
    assert not cluster.pods("gang"), "the other pod is stopped before the Job is complete"
    check_deletion(cluster, done["jobName"])


def a_service_of_a_killed_operator(cluster: GangCluster, name: str) -> dict[str, str]:
    """Create the Service of a job, as an operator does that is killed before it creates the Job."""
    job = cluster.client.get(f"{TRAINING_JOBS}/{name}")
    uid = job["metadata"]["uid"]
    labels = {JOB_UID_LABEL: uid, ROLE_LABEL: "train"}
    metadata: Object = {"name": service_name(name, uid), "namespace": NAMESPACE, "labels": labels}
    metadata["ownerReferences"] = [owner_reference(job)]
    path = f"{ROOT}/services/{metadata['name']}"
    made = cluster.client.apply(path, service(metadata, "train"))
    return {"path": path, "uid": made["metadata"]["uid"]}


def check_addresses(cluster: GangCluster, first: Object, second: Object) -> None:
    """Each pod is on its own node, and both have the DNS name of the first one."""
    assert {pod["spec"]["nodeName"] for pod in (first, second)} == {"kwok-0", "kwok-1"}
    service = cluster.client.get(f"{ROOT}/services/{first['spec']['subdomain']}")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    name = f"{first['spec']['hostname']}.{first['spec']['subdomain']}.{NAMESPACE}.svc"
    for pod in (first, second):
        env = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
        assert (env["MASTER_ADDR"], env["NNODES"]) == (name, "2")
    assert [pod["metadata"]["annotations"][INDEX_LABEL] for pod in (first, second)] == ["0", "1"]


def check_deletion(cluster: GangCluster, child: str) -> None:
    """Delete the job and check that its children are gone."""
    service, job = f"{ROOT}/services/tj-{child}", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{child}"
    assert cluster.is_there(service)
    cluster.client.delete(f"{TRAINING_JOBS}/gang")
    until(lambda: not cluster.is_there(service) and not cluster.is_there(job))


def test_gang_on_a_single_node_claim_fails_before_it_is_queued(cluster: GangCluster) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec}
    cluster.kubernetes.apply({**claim, "metadata": {"name": "single", "namespace": NAMESPACE}})
    cluster.submit("alone", 1, nodes=2, claim="single")
    found = cluster.wait("alone", "Failed")
    assert found["message"].startswith("spec.storage.claimName: the claim single allows ReadWriteOnce only, but the 2")
    assert found.get("queue", {}).keys() <= {"pool", "enqueuedAt"}, "it has neither position nor reason"
    assert "jobName" not in found
    assert not cluster.pods("alone")


def test_namespace_with_a_running_gang_terminates(cluster: GangCluster) -> None:
    """Kubernetes deletes the pods first and the Job replaces them, so the operator ends the Job."""
    passing = "passing"
    kwok_support.prepare_namespace(cluster.kubernetes, passing, CLAIM)
    body = kwok_support.training_job(passing, "gang", claim=CLAIM, gpus=1)
    body["spec"]["resources"]["nodes"] = 2
    job = f"/apis/trainyard.dev/v1alpha1/namespaces/{passing}/trainingjobs/gang"
    cluster.client.apply(job, body)
    until(lambda: cluster.client.get(job).get("status", {}).get("phase") == "Running")
    cluster.kubernetes.kubectl("delete", "namespace", passing, "--wait=false")
    until(lambda: not cluster.is_there(f"/api/v1/namespaces/{passing}"))


def test_unreachable_node_is_reported_and_freed_by_the_out_of_service_taint(cluster: GangCluster) -> None:
    cluster.submit("cut-off", 5, nodes=2)
    cluster.wait("cut-off", "Running")
    second = cluster.pods("cut-off")[1]
    name, since = second["spec"]["nodeName"], "2026-01-01T00:00:00Z"
    node = f"/api/v1/nodes/{name}"
    cluster.client.patch(node, {"metadata": {"labels": {"type": "unreachable"}}})  # kwok no longer plays its kubelet
    # As the node controller does after a while.
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": since}
    cluster.client.patch(f"{node}/status", {"status": {"conditions": [unknown]}})
    where = f"Pod {second['metadata']['name']} is on node {name}, which has been unreachable since {since}."
    until(lambda: where in cluster.status("cut-off")["message"])
    taint = cluster.status("cut-off")["message"].removesuffix(".").rpartition(" ")[2]
    assert taint == "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    cluster.kubernetes.kubectl("taint", "node", name, taint)
    until(lambda: not cluster.is_there(f"{ROOT}/pods/{second['metadata']['name']}"))
    _, replacement = until(lambda: len(pods := cluster.pods("cut-off")) == 2 and pods)
    assert replacement["metadata"]["labels"][INDEX_LABEL] == "1"
    until(lambda: where not in cluster.status("cut-off")["message"])
