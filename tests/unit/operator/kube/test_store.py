"""The store: newest version wins, deletions stick, lists drop phantoms."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard_crds.constants import ENQUEUED_ANNOTATION, JOB_UID_LABEL, ROLE_LABEL
from trainyard_kube.compressed_object import CompressedObject
from trainyard_operator.kube.store import Key, ResourceKind, Store, trim

JOBS, PODS, TRAINING_JOBS = ResourceKind.JOBS, ResourceKind.PODS, ResourceKind.TRAINING_JOBS
KEY = Key("team", "tune")


def training_job(version: int, uid: str = "u1", **status: Any) -> dict[str, Any]:
    metadata = {"name": "tune", "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata | {"managedFields": [1]}, "spec": {"task": "llm"}, "status": status}


def pod(version: int, name: str = "p1", namespace: str = "team", owner: str = "u1") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {JOB_UID_LABEL: owner, ROLE_LABEL: "train"},
        },
        "spec": {"containers": [{"name": "trainer", "image": "i", "env": [{"name": "A", "value": "secret"}]}]},
        "status": {"phase": "Running"},
    }


def names(store: Store) -> list[str]:
    return [entry["metadata"]["name"] for entry in store.children(PODS, "u1", "train")]


def test_an_older_version_does_not_replace_a_newer_one() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(9, phase="Running"))
    store.put(TRAINING_JOBS, training_job(8, phase="Starting"))
    job = store.job(KEY)
    assert job is not None
    assert job["status"] == {"phase": "Running"}


def test_children_are_found_by_their_owner_in_its_namespace_only() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1))
    assert store.put(PODS, pod(2)) == KEY
    assert store.put(PODS, pod(3, "forged", namespace="other")) is None
    assert store.put(PODS, pod(4, "stranger", owner="u9")) is None
    assert names(store) == ["p1"]


def test_a_deleted_pod_is_remembered_until_its_end_was_told() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1))
    store.put(PODS, pod(2))
    assert store.remove(PODS, pod(3)) == KEY
    gone = store.children(PODS, "u1", "train")
    assert [entry["gone"] for entry in gone] == [True]
    store.forget_departed("u1", gone)
    assert names(store) == []


def test_a_late_event_or_list_does_not_bring_back_what_was_deleted() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1))
    store.remove(TRAINING_JOBS, training_job(5))
    store.put(TRAINING_JOBS, training_job(4))
    difference = store.replace(TRAINING_JOBS, [training_job(4)], "4")
    assert (store.job(KEY), difference.missed) == (None, 0)


def test_a_name_that_is_used_again_belongs_to_the_new_object() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1, "old"))
    store.put(TRAINING_JOBS, training_job(5, "new"))
    store.remove(TRAINING_JOBS, training_job(6, "old"))
    job = store.job(KEY)
    assert job is not None
    assert job["metadata"]["uid"] == "new"


def test_a_list_drops_phantoms_but_not_what_is_newer_than_itself() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1))
    store.put(PODS, pod(2, "phantom"))
    store.put(PODS, pod(20, "newer"))
    store.put(PODS, pod(3, "same"))
    difference = store.replace(PODS, [pod(3, "same"), pod(7, "missed")], "10")
    assert sorted(name for name in names(store)) == ["missed", "newer", "phantom", "same"]
    kept = {entry["metadata"]["name"]: entry.get("gone", False) for entry in store.children(PODS, "u1", "train")}
    assert kept == {"missed": False, "newer": False, "phantom": True, "same": False}
    assert (difference.keys, difference.missed) == (frozenset({KEY}), 2)


def test_an_unchanged_list_changes_nothing() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1))
    difference = store.replace(TRAINING_JOBS, [training_job(1)], "5")
    assert (difference.keys, difference.missed) == (frozenset(), 0)


def test_no_environment_of_a_pod_is_kept_and_trimming_twice_is_trimming_once() -> None:
    once = trim(PODS, pod(1))
    assert once["spec"] == {"image": "i"}
    assert trim(PODS, once) == once


def test_the_jobs_with_a_pod_on_a_node_are_those_that_are_not_over() -> None:
    store, body = Store(), pod(1)
    store.put(TRAINING_JOBS, training_job(1))
    body["spec"]["nodeName"] = "n1"
    store.put(PODS, body)
    assert (store.keys_on("n1"), store.keys_on("n2")) == ({KEY}, set())
    done = training_job(2)
    done["status"] = {"phase": "Succeeded"}
    store.put(TRAINING_JOBS, done)
    assert store.keys_on("n1") == set()


def test_what_keeps_a_pod_is_known_once_it_is_deleted() -> None:
    body = pod(1)
    body["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    assert "finalizers" not in trim(PODS, body)["metadata"]
    body["metadata"]["deletionTimestamp"] = "2026-01-02T10:00:00Z"
    once = trim(PODS, body)
    assert once["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert trim(PODS, once) == once


def test_a_trimmed_job_keeps_its_image_when_it_is_trimmed_again() -> None:
    body = pod(1)
    body["spec"] = {"suspend": False, "template": {"spec": body["spec"]}}
    once = trim(JOBS, body)
    assert once["spec"] == {"suspend": False, "image": "i"}
    assert trim(JOBS, once) == once


def test_a_job_is_unanswered_until_it_has_a_child_and_again_when_its_spec_changed() -> None:
    store, body = Store(), training_job(1)
    assert not store.is_unanswered(KEY)
    body["metadata"]["generation"] = 1
    store.put(TRAINING_JOBS, body)
    assert store.is_unanswered(KEY)
    store.put(ResourceKind.JOBS, pod(2, "child"))
    assert not store.is_unanswered(KEY)
    store.put(TRAINING_JOBS, {**training_job(3), "status": {"observedGeneration": 1}})
    changed = {**training_job(4), "status": {"observedGeneration": 1}}
    changed["metadata"]["generation"] = 2
    store.put(TRAINING_JOBS, changed)
    assert store.is_unanswered(KEY)


def test_a_namespace_has_jobs_until_the_last_one_is_gone() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1, "old"))
    store.put(TRAINING_JOBS, training_job(2, "new"))
    store.remove(TRAINING_JOBS, training_job(3, "old"))
    assert store.has_namespace("team")
    store.remove(TRAINING_JOBS, training_job(4, "new"))
    assert not store.has_namespace("team")


def test_the_phases_and_namespaces_are_those_of_the_jobs() -> None:
    store = Store()
    store.put(TRAINING_JOBS, training_job(1))
    assert (store.count_phases(), store.namespaces(), store.all_keys()) == ({"Pending": 1}, {"team"}, [KEY])


@pytest.mark.parametrize("finished_first", [True, False])
def test_what_belongs_to_a_finished_job_is_packed_and_reads_the_same(finished_first: bool) -> None:
    store, plain = Store(), Store()
    news = [(TRAINING_JOBS, training_job(5, phase="Succeeded")), (PODS, pod(6))]
    for kind, obj in news if finished_first else reversed(news):
        store.put(kind, obj)
    plain.put(TRAINING_JOBS, training_job(5, phase="Running"))
    plain.put(PODS, pod(6))
    assert store.children(PODS, "u1", "train") == plain.children(PODS, "u1", "train")
    found, other = store.job(KEY), plain.job(KEY)
    assert found is not None
    assert other is not None
    assert found == {**other, "status": {"phase": "Succeeded"}}
    assert all(
        isinstance(entry, CompressedObject) for kind in (TRAINING_JOBS, PODS) for entry in store._objects[kind].values()
    )
    assert store.has(TRAINING_JOBS, training_job(5))
    assert not store.has(TRAINING_JOBS, training_job(6))
    assert store.count_phases() == {"Succeeded": 1}
    assert store.replace(TRAINING_JOBS, [], "7").keys == {KEY}
    assert store.job(KEY) is None


def test_a_job_keeps_its_stamp_and_no_other_annotation() -> None:
    annotations = {ENQUEUED_ANNOTATION: "2026-01-02T10:00:00.000001Z", "other": "x"}
    job = {
        "metadata": {"name": "j", "namespace": "team", "uid": "j", "resourceVersion": "1", "annotations": annotations}
    }
    trimmed = trim(JOBS, job)
    assert trimmed["metadata"]["annotations"] == {ENQUEUED_ANNOTATION: "2026-01-02T10:00:00.000001Z"}
    assert trim(JOBS, trimmed) == trimmed
