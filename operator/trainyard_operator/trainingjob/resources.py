"""The resources of TrainingJobs: what the operator keeps of TrainingJobs, their Jobs and their pods."""

from __future__ import annotations

from enum import StrEnum

from trainyard_crds import constants
from trainyard_crds.constants import (
    ENQUEUED_ANNOTATION,
    JOB_UID_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    TRAINER_CONTAINER,
)
from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube import paths
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key, StoredSpec
from trainyard_kube.store import Store


class ResourceKind(StrEnum):
    """Plural names of the kinds."""

    TRAINING_JOBS = "trainingjobs"
    JOBS = "jobs"
    PODS = "pods"


def job_key(namespace: str, name: str) -> Key:
    """Return the key of a TrainingJob."""
    return Key(ResourceKind.TRAINING_JOBS, namespace, name)


def is_unanswered(store: Store, key: Key) -> bool:
    """Return whether the operator has not acted on a spec yet: no Job was created, or a change was not observed."""
    job = store.get(key)
    if job is None:
        return False
    observed = (job["status"] or {}).get("observedGeneration")
    if observed is None:
        return not store.has_children(ResourceKind.JOBS, job["metadata"]["uid"])
    return bool(observed != job["metadata"].get("generation"))


def jobs_on_node(store: Store, node: str) -> set[Key]:
    """Return the unfinished TrainingJobs with a pod on a node."""
    return store.owners_of(ResourceKind.PODS, lambda pod: pod["spec"].get("nodeName") == node)


SUSPENDED_BY = "suspendedBy"
"""Where a trimmed Job that is suspended names the field manager that set `spec.suspend`."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "ownerReferences",
)
_JOB_STATUS = ("active", "terminating", "failed", "succeeded")
_POD_STATUS = ("phase", "reason", "message")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")


def trim_training_job(obj: Object) -> Object:
    """Return a TrainingJob without managed fields and without the annotation that repeats the whole object."""
    metadata = obj["metadata"]
    kept = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    finalizers = metadata.get("finalizers") if "deletionTimestamp" in metadata else None
    return {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "metadata": _pick(metadata, _METADATA)
        | ({"annotations": kept} if kept else {})
        | ({"finalizers": finalizers} if finalizers else {}),
        "spec": obj.get("spec") or {},
        "status": obj.get("status") or {},
    }


def trim_job(obj: Object) -> Object:
    """Return what decisions need of a Job."""
    spec = obj.get("spec") or {}
    metadata = obj["metadata"]
    annotations = _pick(metadata.get("annotations") or {}, (ENQUEUED_ANNOTATION,))
    manager = _suspender(metadata) if spec.get("suspend") else None
    return {
        "metadata": _pick(metadata, _METADATA)
        | ({"annotations": annotations} if annotations else {})
        | ({SUSPENDED_BY: manager} if manager else {}),
        "spec": _pick(spec, ("suspend", "backoffLimit")) | _image((spec.get("template") or {}).get("spec") or spec),
        "status": _status(obj, _JOB_STATUS),
    }


def trim_pod(obj: Object) -> Object:
    """Return what decisions need of a pod; its environment and its volumes are not kept."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    containers = status.get("containerStatuses") or []
    states = [{"name": entry["name"], "state": entry.get("state") or {}} for entry in containers]
    finalizers = metadata.get("finalizers") if "deletionTimestamp" in metadata else None
    return {
        "metadata": _pick(metadata, _METADATA) | ({"finalizers": finalizers} if finalizers else {}),
        "spec": _pick(spec, ("nodeName",)) | _image(spec),
        "status": _status(obj, _POD_STATUS) | ({"containerStatuses": states} if states else {}),
    }


def _suspender(metadata: Object) -> str | None:
    """Return the field manager that last set `spec.suspend`, also from a Job that was trimmed before."""
    for entry in metadata.get("managedFields") or []:
        if "f:suspend" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            return str(entry.get("manager") or "")
    return metadata.get(SUSPENDED_BY)


def _pick(mapping: Object, keys: tuple[str, ...]) -> Object:
    return {key: mapping[key] for key in keys if key in mapping}


def _status(obj: Object, keys: tuple[str, ...]) -> Object:
    status = obj.get("status") or {}
    conditions = [_pick(entry, _CONDITION) for entry in status.get("conditions") or []]
    return _pick(status, keys) | ({"conditions": conditions} if conditions else {})


def _image(pod_spec: Object) -> Object:
    """Return the trainer's image as `image`, also from a spec that was trimmed before."""
    images = [entry["image"] for entry in pod_spec.get("containers") or [] if entry["name"] == TRAINER_CONTAINER]
    return {"image": images[0]} if images else _pick(pod_spec, ("image",))


def _job_owner_uid(obj: Object) -> str:
    """Return the UID of a Job's TrainingJob; the label, which any client may change, only without a reference."""
    references = obj["metadata"].get("ownerReferences") or []
    owners = [entry["uid"] for entry in references if entry.get("controller") and entry.get("kind") == "TrainingJob"]
    return str(owners[0]) if owners else owner_uid(obj)


def owner_uid(obj: Object) -> str:
    """Return the UID of the TrainingJob that the label of a child names."""
    return str((obj["metadata"].get("labels") or {}).get(JOB_UID_LABEL, ""))


def _phase(job: Object) -> str:
    return str(job["status"].get("phase") or Phase.PENDING)


_LABELS = {MANAGED_BY_LABEL: MANAGED_BY}

SPECS = (
    StoredSpec(
        kind=ResourceKind.TRAINING_JOBS,
        collection=constants.TRAINING_JOBS,
        trim=trim_training_job,
        is_final=lambda job: _phase(job) in FINAL_PHASES,
        state=_phase,
    ),
    StoredSpec(kind=ResourceKind.JOBS, collection=paths.JOBS, labels=_LABELS, trim=trim_job, owner_uid=_job_owner_uid),
)
