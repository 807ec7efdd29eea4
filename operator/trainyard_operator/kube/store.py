"""The objects we watch, trimmed, by kind and by the TrainingJob they belong to. No I/O."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from trainyard_crds.constants import ENQUEUED_ANNOTATION, JOB_UID_LABEL, ROLE_LABEL, TRAINER_CONTAINER
from trainyard_crds.trainingjob_status import FINAL_PHASES
from trainyard_kube.compressed_object import CompressedObject, decompressed

Object = dict[str, Any]
_TOMBSTONES = 10_000


class ResourceKind(StrEnum):
    """What is watched, by its plural name."""

    TRAINING_JOBS = "trainingjobs"
    JOBS = "jobs"
    PODS = "pods"


CHILD_KINDS = (ResourceKind.JOBS, ResourceKind.PODS)


class Key(NamedTuple):
    """Name of a TrainingJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a list changed in the store.

    Attributes:
        keys: TrainingJobs to look at.
        missed: Objects whose news the watch should have brought but did not.
    """

    keys: frozenset[Key]
    missed: int


class Store:
    """All TrainingJobs and their children, each at the newest version seen; those of finished jobs are packed."""

    def __init__(self) -> None:
        self._objects: dict[ResourceKind, dict[str, Object | CompressedObject]] = {kind: {} for kind in ResourceKind}
        self._children: dict[tuple[ResourceKind, str], dict[str, Object | CompressedObject]] = {}
        self._departed: dict[str, dict[str, Object]] = {}
        self._uids: dict[Key, str] = {}
        self._namespaces: Counter[str] = Counter()
        self._owners: dict[str, Key] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def job(self, key: Key) -> Object | None:
        """The TrainingJob of that name."""
        uid = self._uids.get(key)
        return None if uid is None else decompressed(self._objects[ResourceKind.TRAINING_JOBS][uid])

    def children(self, kind: ResourceKind, owner_uid: str, role: str) -> list[Object]:
        """Children of a TrainingJob with that role; of pods also those that ended and were deleted a moment ago."""
        found = [decompressed(child) for child in self._children.get((kind, owner_uid), {}).values()]
        if kind is ResourceKind.PODS:
            found += self._departed.get(owner_uid, {}).values()
        owner = self._owners.get(owner_uid)
        namespace = owner.namespace if owner else None
        # A label is easily forged: a child counts only in its owner's namespace.
        return [
            child
            for child in found
            if _labels(child).get(ROLE_LABEL) == role and child["metadata"]["namespace"] == namespace
        ]

    def forget_departed(self, owner_uid: str, pods: Iterable[Object]) -> None:
        """Drop deleted pods whose end has been taken in."""
        departed = self._departed.get(owner_uid, {})
        for pod in pods:
            departed.pop(pod["metadata"]["uid"], None)
        if not departed:
            self._departed.pop(owner_uid, None)

    def is_unanswered(self, key: Key) -> bool:
        """Whether nothing was done yet about a TrainingJob's spec: no Job made of a new one, no change taken in."""
        job = self.job(key)
        if job is None:
            return False
        known = (job["status"] or {}).get("observedGeneration")
        if known is None:
            return (ResourceKind.JOBS, job["metadata"]["uid"]) not in self._children
        return bool(known != job["metadata"].get("generation"))

    def keys_on(self, node: str) -> set[Key]:
        """Unfinished TrainingJobs with a pod on a node."""
        pods = [pod for pod in self._objects[ResourceKind.PODS].values() if not isinstance(pod, CompressedObject)]
        keys = (self._key(ResourceKind.PODS, pod) for pod in pods if pod["spec"].get("nodeName") == node)
        return {key for key in keys if key is not None}

    def all_keys(self) -> list[Key]:
        """Every TrainingJob's key."""
        return list(self._uids)

    def namespaces(self) -> set[str]:
        """Namespaces with a TrainingJob."""
        return set(self._namespaces)

    def has_namespace(self, namespace: str) -> bool:
        """Whether a namespace has a TrainingJob."""
        return namespace in self._namespaces

    def count_phases(self) -> dict[str, int]:
        """Number of TrainingJobs in each phase."""
        counts: dict[str, int] = {}
        for job in self._objects[ResourceKind.TRAINING_JOBS].values():
            phase = _phase(job) or "Pending"
            counts[phase] = counts.get(phase, 0) + 1
        return counts

    def has(self, kind: ResourceKind, obj: Object) -> bool:
        """Whether this version of an object, or a newer one, is known."""
        known = self._objects[kind].get(obj["metadata"]["uid"])
        return known is not None and version(known) >= version(obj)

    def put(self, kind: ResourceKind, obj: Object) -> Key | None:
        """Take in an object unless a newer version of it is known or it has been deleted.

        Returns:
            The TrainingJob it belongs to, where that is known.
        """
        uid = obj["metadata"]["uid"]
        known = self._objects[kind].get(uid)
        if uid not in self._deleted and (known is None or version(known) < version(obj)):
            self._insert(kind, uid, trim(kind, obj))
        return self._key(kind, obj)

    def remove(self, kind: ResourceKind, obj: Object) -> Key | None:
        """Take out a deleted object; a pod is kept as departed until its end has been recorded.

        Returns:
            The TrainingJob it belonged to, where that is known.
        """
        uid = obj["metadata"]["uid"]
        self._bury(uid)
        key = self._key(kind, obj)
        self._objects[kind].pop(uid, None)
        if kind is ResourceKind.TRAINING_JOBS:
            self._remove_owner(uid)
            return key
        owner = _labels(obj).get(JOB_UID_LABEL, "")
        children = self._children.get((kind, owner), {})
        children.pop(uid, None)
        if not children:
            self._children.pop((kind, owner), None)
        if kind is ResourceKind.PODS and key is not None:
            self._departed.setdefault(owner, {})[uid] = {**trim(kind, obj), "gone": True}
        return key

    def replace(self, kind: ResourceKind, listed: list[Object], list_version: str) -> Difference:
        """Take in a complete list: newer objects replace, and what is missing and not newer than the list is gone."""
        keys: set[Key | None] = set()
        missed = 0
        seen = {obj["metadata"]["uid"] for obj in listed}
        for phantom in [obj for uid, obj in self._objects[kind].items() if uid not in seen]:
            if version(phantom) <= int(list_version):
                missed += 1
                keys.add(self.remove(kind, decompressed(phantom)))
        for obj in listed:
            known = self._objects[kind].get(obj["metadata"]["uid"])
            if obj["metadata"]["uid"] not in self._deleted and (known is None or version(known) < version(obj)):
                missed += 1
                keys.add(self.put(kind, obj))
        return Difference(keys=frozenset(key for key in keys if key is not None), missed=missed)

    def _insert(self, kind: ResourceKind, uid: str, obj: Object) -> None:
        owner = uid if kind is ResourceKind.TRAINING_JOBS else _labels(obj).get(JOB_UID_LABEL, "")
        finished = _phase(obj if owner == uid else self._objects[ResourceKind.TRAINING_JOBS].get(owner)) in FINAL_PHASES
        entry = self._objects[kind][uid] = CompressedObject(obj) if finished else obj
        if kind is ResourceKind.TRAINING_JOBS:
            if finished:
                self._pack_children(uid)
            key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
            if key not in self._uids:
                self._namespaces[key.namespace] += 1
            self._uids[key], self._owners[uid] = uid, key
        else:
            self._children.setdefault((kind, owner), {})[uid] = entry

    def _pack_children(self, owner: str) -> None:
        for kind in CHILD_KINDS:
            for uid, child in self._children.get((kind, owner), {}).items():
                if not isinstance(child, CompressedObject):
                    self._children[kind, owner][uid] = self._objects[kind][uid] = CompressedObject(child)

    def _key(self, kind: ResourceKind, obj: Object) -> Key | None:
        metadata = obj["metadata"]
        if kind is ResourceKind.TRAINING_JOBS:
            return Key(metadata["namespace"], metadata["name"])
        key = self._owners.get(_labels(obj).get(JOB_UID_LABEL, ""))
        return key if key is not None and key.namespace == metadata["namespace"] else None

    def _remove_owner(self, uid: str) -> None:
        key = self._owners.pop(uid, None)
        if key is not None and self._uids.get(key) == uid:
            del self._uids[key]
            self._namespaces[key.namespace] -= 1
            if not self._namespaces[key.namespace]:
                del self._namespaces[key.namespace]
        self._departed.pop(uid, None)

    def _bury(self, uid: str) -> None:
        """Remember a deleted uid, so that an older list does not bring it back."""
        self._deleted[uid] = None
        if len(self._deleted) > _TOMBSTONES:
            self._deleted.popitem(last=False)


def version(entry: Object | CompressedObject) -> int:
    """The resourceVersion, which since Kubernetes 1.35 may be compared within a kind."""
    return entry.version if isinstance(entry, CompressedObject) else int(entry["metadata"]["resourceVersion"])


def _phase(entry: Object | CompressedObject | None) -> str | None:
    if isinstance(entry, CompressedObject):
        return entry.phase
    return ((entry or {}).get("status") or {}).get("phase")


def trim(kind: ResourceKind, obj: Object) -> Object:
    """What decisions need of an object: less memory, and no environment or volume of a pod is kept."""
    trimmed: Object = {"metadata": _metadata(obj["metadata"]), "status": _status(kind, obj.get("status") or {})}
    spec = obj.get("spec") or {}
    if kind is ResourceKind.TRAINING_JOBS:
        trimmed |= {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "spec": spec}
    elif kind is ResourceKind.JOBS:
        kept = {key: spec[key] for key in ("suspend", "backoffLimit") if key in spec}
        trimmed["spec"] = kept | _image((spec.get("template") or {}).get("spec") or spec)
        trimmed["metadata"] |= _stamp(obj["metadata"].get("annotations") or {})
    else:
        kept = {key: spec[key] for key in ("nodeName",) if key in spec}
        trimmed["spec"] = kept | _image(spec)
        trimmed["metadata"] |= _held(obj["metadata"])
    return trimmed


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
_JOB_STATUS: tuple[str, ...] = ("active", "terminating", "failed", "succeeded")
_POD_STATUS: tuple[str, ...] = ("phase", "reason", "message")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")


def _metadata(metadata: Object) -> Object:
    return {key: metadata[key] for key in _METADATA if key in metadata}


def _status(kind: ResourceKind, status: Object) -> Object:
    if kind is ResourceKind.TRAINING_JOBS:
        return status
    conditions = [{key: entry[key] for key in _CONDITION if key in entry} for entry in status.get("conditions") or []]
    if kind is ResourceKind.JOBS:
        kept = {key: status[key] for key in _JOB_STATUS if key in status}
    else:
        kept = {key: status[key] for key in _POD_STATUS if key in status}
        states = [
            {"name": entry["name"], "state": entry.get("state") or {}}
            for entry in status.get("containerStatuses") or []
        ]
        kept |= {"containerStatuses": states} if states else {}
    return kept | ({"conditions": conditions} if conditions else {})


def _stamp(annotations: dict[str, str]) -> Object:
    kept = {key: annotations[key] for key in (ENQUEUED_ANNOTATION,) if key in annotations}
    return {"annotations": kept} if kept else {}


def _held(metadata: Object) -> Object:
    """What keeps a deleted pod."""
    kept = metadata.get("finalizers") if "deletionTimestamp" in metadata else None
    return {"finalizers": kept} if kept else {}


def _image(pod_spec: Object) -> Object:
    containers = [entry for entry in pod_spec.get("containers") or [] if entry["name"] == TRAINER_CONTAINER]
    return (
        {"image": containers[0]["image"]} if containers else {"image": pod_spec["image"]} if "image" in pod_spec else {}
    )


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}
