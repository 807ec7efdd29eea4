"""Isolation of two tenants: no name, label, reference or path of one namespace reaches the other.

test_gateway.py covers the token of a pod of another namespace (`ForeignNamespace`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import (
    SPEC,
    USER,
    Operator,
    Pod,
    Team,
    TrainingJob,
    requests_by,
    team_namespace,
    termination,
)
from trainyard_crds.constants import ROLE_LABEL

pytestmark = pytest.mark.api
Object = dict[str, Any]


@pytest.fixture
def other(control_plane: Kubernetes) -> Iterator[Team]:
    """Namespace of another tenant, with a claim, a Secret and a ConfigMap that the team lacks."""
    with team_namespace(control_plane, "other") as made:
        metadata = {"name": "theirs", "namespace": made.namespace}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        control_plane.apply(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec},
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": "hf_otherTENANT"}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"run.json": "{}"}},
        )
        yield made


def requests_in(kubernetes: Kubernetes, namespace: str, after: int) -> list[str]:
    """Return the operator's requests for a namespace since a line of the audit log; watches cover all namespaces."""
    made = requests_by(kubernetes, USER, after)
    return [f"{e['verb']} {e['requestURI']}" for e in made if e.get("objectRef", {}).get("namespace") == namespace]


@pytest.fixture(scope="module")
def bound_when_placed(control_plane: Kubernetes) -> str:
    """Storage class whose claims are bound with a pod, so that the scheduler reports a pod's missing claims."""
    control_plane.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "bound-when-placed"},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
    )
    return "bound-when-placed"


@pytest.mark.parametrize(
    ("claim", "spec"),
    [
        ("theirs", {"model": {"source": "pvc://theirs/model"}, "dataset": {"source": "pvc://theirs/train.jsonl"}}),
        ("theirs", {"storage": {"claimName": "theirs"}}),
        ("{other}", {"model": {"source": "pvc://{other}/theirs"}, "dataset": {"source": "pvc://{other}/theirs"}}),
    ],
    ids=["source", "storage", "namespace as claim"],
)
def test_claim_of_another_namespace_is_not_found(
    operator: Operator, team: Team, other: Team, *, claim: str, spec: Object, bound_when_placed: str
) -> None:
    claim, spec = json.loads(json.dumps([claim, spec]).replace("{other}", other.namespace))
    before = len(team.kubernetes.audit())
    job = team.create("reaching", **{"storage": {"storageClassName": bound_when_placed}} | spec)
    until(lambda: f'persistentvolumeclaim "{claim}" not found' in str(job.status().get("message")))
    assert job.status()["phase"] == "Starting"
    assert claim not in team.names("persistentvolumeclaims")
    assert requests_in(team.kubernetes, other.namespace, before) == []


def test_operator_references_a_secret_without_reading_it(operator: Operator, team: Team, other: Team) -> None:
    before = len(team.kubernetes.audit())
    secret = {"name": "theirs", "key": "token"}
    job = team.create("reaching", model={"source": "hf://org/name", "credentialsSecret": secret})
    pod = job.pod().read()
    assert pod is not None
    sources = [entry.get("valueFrom", {}) for entry in pod["spec"]["containers"][0]["env"]]
    assert [source["secretKeyRef"] for source in sources if "secretKeyRef" in source] == [secret]
    assert "theirs" not in team.names("secrets")
    made = requests_by(team.kubernetes, USER, before)
    assert [entry for entry in made if entry.get("objectRef", {}).get("resource") == "secrets"] == []
    assert requests_in(team.kubernetes, other.namespace, before) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"model": {"source": "pvc://../other/theirs"}}, "spec.model.source"),
        ({"model": {"source": "pvc://claim/../../theirs"}}, "spec.model.source"),
        ({"dataset": {"source": "pvc://claim/a/../../../etc/passwd"}}, "spec.dataset.source"),
        ({"dataset": {"source": "pvc://other:theirs/train.jsonl"}}, "spec.dataset.source"),
        ({"storage": {"claimName": "other/theirs"}}, "spec.storage.claimName"),
        ({"storage": {"claimName": "../theirs"}}, "spec.storage.claimName"),
        ({"storage": {"claimName": "theirs", "namespace": "other"}}, "spec.storage.namespace"),
        (
            {"model": {"source": "hf://org/name", "credentialsSecret": {"name": "other/theirs", "key": "token"}}},
            "spec.model.credentialsSecret.name",
        ),
        (
            {"model": {"source": "hf://org/name", "credentialsSecret": {"name": "a", "key": "../token"}}},
            "spec.model.credentialsSecret.key",
        ),
        (
            {
                "model": {
                    "source": "hf://org/name",
                    "credentialsSecret": {"name": "a", "key": "token", "namespace": "other"},
                }
            },
            "spec.model.credentialsSecret.namespace",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_field_references_another_namespace(team: Team, spec: Object, field: str) -> None:
    body = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "reaching", "namespace": team.namespace},
        "spec": {**SPEC, **spec},
    }
    cluster = team.kubernetes.cluster
    command = [str(cluster.kubectl), "--kubeconfig", str(cluster.kubeconfig), "apply", "--validate=strict", "-f", "-"]
    done = subprocess.run(command, input=json.dumps(body), capture_output=True, text=True, check=False)
    assert done.returncode == 1, "the API server accepted it"
    assert field in done.stderr


def test_jobs_with_the_same_name_in_two_namespaces_are_independent(operator: Operator, team: Team, other: Team) -> None:
    ours, theirs = team.create("run"), other.create("run")
    pod, their_pod = ours.run_and_wait_for_event(), theirs.run_and_wait_for_event()
    assert ours.child_name != theirs.child_name
    for mine, foreign in ((ours, theirs), (theirs, ours)):
        names = {foreign.team.namespace, foreign.uid, foreign.child_name}
        config = f"/api/v1/namespaces/{mine.team.namespace}/configmaps"
        made = json.dumps([mine.child(), mine.pods(), mine.client.get(config)])
        assert [name for name in names if name in made] == []
    before = theirs.read()["metadata"]["resourceVersion"]
    ours.finish(pod)
    ours.wait("Succeeded")
    ours.delete()
    assert (theirs.read()["metadata"]["resourceVersion"], theirs.status()["phase"]) == (before, "Running")
    theirs.finish(their_pod)
    theirs.wait("Succeeded")


def forged_pod(victim: TrainingJob, owner: Object, suffix: str, role: str) -> Object:
    """Return a pod with the name and labels of one of the victim's pods."""
    labels = {**victim.child()["spec"]["template"]["metadata"]["labels"], ROLE_LABEL: role}
    metadata = {"name": f"{victim.child_name}-{suffix}", "labels": labels, "ownerReferences": [controller(owner)]}
    container = {"name": "trainer", "image": "none"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def controller(owner: Object) -> Object:
    metadata = owner["metadata"]
    named = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    return {**named, "controller": True}


def forged_job(victim: TrainingJob) -> Object:
    """Return a suspended Job with the name and labels of the victim's."""
    kept = {key: victim.child()["metadata"][key] for key in ("name", "labels", "annotations")}
    container = {"name": "trainer", "image": "none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"template": template, "suspend": True}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": kept, "spec": spec}


def test_forged_children_in_another_namespace_are_ignored(operator: Operator, team: Team, other: Team) -> None:
    ours = team.create("victim")
    pod = ours.run_and_wait_for_event()
    before = ours.read()
    forged = TrainingJob(other, "victim", ours.uid)
    fake = other.client.apply(forged.child_path, forged_job(ours))
    for suffix, role in (("aaaaa", "train"), ("bbbbb", "check")):
        made = Pod(forged, f"{ours.child_name}-{suffix}")
        other.client.apply(made.path, forged_pod(ours, fake, suffix, role))
        made.start()
        made.end(0, termination("Finished", step=100, message="Forged."))
    # Owned by the victim's real Job; the garbage collector removes it, since its namespace has no such owner.
    claimed = Pod(forged, f"{ours.child_name}-ccccc")
    other.client.apply(claimed.path, forged_pod(ours, ours.child(), "ccccc", "train"))
    until(lambda: claimed.read() is None)
    # Once this job runs, the operator has processed the earlier events.
    other.create("marker").run()
    assert ours.read() == before
    ours.finish(pod)
    status = ours.wait("Succeeded")
    assert [entry["pod"] for entry in status["attempts"]] == [pod.name]
    assert "Forged" not in json.dumps(status)
