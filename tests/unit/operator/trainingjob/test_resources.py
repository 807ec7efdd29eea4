"""What is kept of TrainingJobs, Jobs and pods, and how they belong together."""

from __future__ import annotations

from typing import Any

from trainyard_crds.constants import ENQUEUED_ANNOTATION, JOB_UID_LABEL, ROLE_LABEL
from trainyard_kube.store import Store
from trainyard_operator.stored_resources import SPECS
from trainyard_operator.trainingjob.resources import (
    ResourceKind,
    is_unanswered,
    job_key,
    jobs_on_node,
    trim_job,
    trim_pod,
    trim_training_job,
)

JOBS, PODS, TRAINING_JOBS = ResourceKind.JOBS, ResourceKind.PODS, ResourceKind.TRAINING_JOBS
KEY = job_key("team", "tune")


def training_job(version: int, **status: Any) -> dict[str, Any]:
    metadata = {"name": "tune", "namespace": "team", "uid": "u1", "resourceVersion": str(version)}
    return {"metadata": metadata | {"managedFields": [1]}, "spec": {"task": "llm"}, "status": status}


def pod(version: int, name: str = "p1") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {JOB_UID_LABEL: "u1", ROLE_LABEL: "train"},
        },
        "spec": {"containers": [{"name": "trainer", "image": "i", "env": [{"name": "A", "value": "secret"}]}]},
        "status": {"phase": "Running"},
    }


def test_resources_are_listed_with_the_owner_first() -> None:
    ours, served = (
        "app.kubernetes.io/managed-by=trainyard",
        "app.kubernetes.io/managed-by=trainyard,trainyard.dev/role=serve",
    )
    assert [(spec.url, spec.selector) for spec in SPECS] == [
        ("/apis/trainyard.dev/v1alpha1/trainingjobs", ""),
        ("/apis/batch/v1/jobs", ours),
        ("/apis/trainyard.dev/v1alpha1/modeldeployments", ""),
        ("/apis/apps/v1/deployments", served),
        ("/api/v1/configmaps", served),
        ("/api/v1/services", served),
        ("/apis/policy/v1/poddisruptionbudgets", served),
        ("/apis/discovery.k8s.io/v1/endpointslices", served),
        ("/api/v1/pods", ours),
    ]


def test_training_job_is_kept_without_managed_fields() -> None:
    trimmed = trim_training_job(training_job(1, phase="Running"))
    assert "managedFields" not in trimmed["metadata"]
    assert (trimmed["spec"], trimmed["status"]) == ({"task": "llm"}, {"phase": "Running"})


def test_pod_is_kept_without_its_environment_and_trimming_is_idempotent() -> None:
    once = trim_pod(pod(1))
    assert once["spec"] == {"image": "i"}
    assert trim_pod(once) == once


def test_finalizers_are_kept_of_a_deleted_pod_only() -> None:
    body = pod(1)
    body["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    assert "finalizers" not in trim_pod(body)["metadata"]
    body["metadata"]["deletionTimestamp"] = "2026-01-02T10:00:00Z"
    once = trim_pod(body)
    assert once["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert trim_pod(once) == once


def test_image_of_a_job_is_kept_and_trimming_is_idempotent() -> None:
    body = pod(1)
    body["spec"] = {"suspend": False, "template": {"spec": body["spec"]}}
    once = trim_job(body)
    assert once["spec"] == {"suspend": False, "image": "i"}
    assert trim_job(once) == once


def test_annotations_of_a_training_job_are_kept_but_not_the_copy_of_the_object() -> None:
    job = training_job(1)
    job["metadata"]["annotations"] = {"team": "nlp", "kubectl.kubernetes.io/last-applied-configuration": "{...}"}
    assert trim_training_job(job)["metadata"]["annotations"] == {"team": "nlp"}
    assert "annotations" not in trim_training_job(training_job(1))["metadata"]


def test_enqueue_time_is_the_only_annotation_of_a_job_that_is_kept() -> None:
    annotations = {ENQUEUED_ANNOTATION: "2026-01-02T10:00:00.000001Z", "other": "x"}
    metadata = {"name": "j", "namespace": "team", "uid": "j", "resourceVersion": "1", "annotations": annotations}
    trimmed = trim_job({"metadata": metadata})
    assert trimmed["metadata"]["annotations"] == {ENQUEUED_ANNOTATION: "2026-01-02T10:00:00.000001Z"}
    assert trim_job(trimmed) == trimmed


def test_training_jobs_are_counted_by_phase() -> None:
    store = Store(SPECS)
    store.put(TRAINING_JOBS, training_job(1))
    assert store.count_states(TRAINING_JOBS) == {"Pending": 1}
    store.put(TRAINING_JOBS, training_job(2, phase="Running"))
    assert store.count_states(TRAINING_JOBS) == {"Running": 1}


def test_jobs_on_a_node_are_the_unfinished_ones() -> None:
    store, body = Store(SPECS), pod(1)
    store.put(TRAINING_JOBS, training_job(1))
    body["spec"]["nodeName"] = "n1"
    store.put(PODS, body)
    assert (jobs_on_node(store, "n1"), jobs_on_node(store, "n2")) == ({KEY}, set())
    store.put(TRAINING_JOBS, training_job(2, phase="Succeeded"))
    assert jobs_on_node(store, "n1") == set()


def test_job_is_unanswered_until_it_has_a_child_and_after_each_change_of_its_spec() -> None:
    store, body = Store(SPECS), training_job(1)
    assert not is_unanswered(store, KEY)
    body["metadata"]["generation"] = 1
    store.put(TRAINING_JOBS, body)
    assert is_unanswered(store, KEY)
    store.put(JOBS, pod(2, "child"))
    assert not is_unanswered(store, KEY)
    store.put(TRAINING_JOBS, training_job(3, observedGeneration=1))
    changed = training_job(4, observedGeneration=1)
    changed["metadata"]["generation"] = 2
    store.put(TRAINING_JOBS, changed)
    assert is_unanswered(store, KEY)
