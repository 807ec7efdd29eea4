"""Every change of nodes, pods, Jobs and TrainingJobs as an independent client observes it, in etcd's order."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.api.gateway_support import Kubernetes
from trainyard_crds.constants import ADMITTED_ANNOTATION, JOB_UID_LABEL, ROLE_LABEL
from trainyard_kube.errors import ApiError
from trainyard_operator.trainingjob.children.render import TRAIN_ROLE

Object = dict[str, Any]
GPU = "nvidia.com/gpu"
_OVER = ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")
ENDS = ("Succeeded", "Failed", "Stopped")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One version of an object.

    Attributes:
        rv: Resource version, which orders versions of all kinds.
        at: Unix seconds of its arrival.
        uid, name: The object's; the name has its namespace before it, where it has one.
        gone: Whether it was deleted.
    """

    rv: int
    at: float
    uid: str
    name: str
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Node(Change):
    gpus: int
    open: bool
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pod(Change):
    """A pod; `job` is the UID of its TrainingJob, empty for a foreign one."""

    node: str
    phase: str
    gpus: int
    job: str = ""
    terminating: bool = False

    @property
    def holds(self) -> bool:
        """Whether it holds GPUs of its node."""
        return bool(self.node) and not self.gone and self.phase not in ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class Job(Change):
    """A batch Job; `job` is the UID of its TrainingJob, `admitted` the admission time in its annotation."""

    job: str
    admitted: str
    suspended: bool
    ended: bool
    terminating: bool = False

    @property
    def open(self) -> bool:
        """Whether it may have pods."""
        return not (self.gone or self.ended or self.suspended or self.terminating)


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Change):
    priority: int
    gpus: int
    nodes: int
    phase: str
    stamp: str
    reason: str = ""
    message: str = ""
    position: int | None = None
    length: int | None = None
    estimate: str = ""
    basis: str = ""
    selector: str = ""

    @property
    def ended(self) -> bool:
        return self.phase in ENDS


def _owner(obj: Object) -> str:
    """UID of the TrainingJob of a training Job or trainer pod; empty for others, which hold no GPUs."""
    labels = obj["metadata"].get("labels") or {}
    return str(labels.get(JOB_UID_LABEL, "")) if labels.get(ROLE_LABEL) == TRAIN_ROLE else ""


def node_of(obj: Object, **common: Any) -> Node:
    status, metadata = obj.get("status") or {}, obj["metadata"]
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or [])
    return Node(
        **common,
        gpus=int((status.get("allocatable") or {}).get(GPU, 0)),
        open=ready and not obj["spec"].get("unschedulable", False),
        labels=tuple(sorted((metadata.get("labels") or {}).items())),
    )


def pod_of(obj: Object, **common: Any) -> Pod:
    limits = (container.get("resources", {}).get("limits") or {} for container in obj["spec"]["containers"])
    return Pod(
        **common,
        node=obj["spec"].get("nodeName") or "",
        phase=(obj.get("status") or {}).get("phase") or "",
        gpus=sum(int(each.get(GPU, 0)) for each in limits),
        job=_owner(obj),
        terminating="deletionTimestamp" in obj["metadata"],
    )


def job_of(obj: Object, **common: Any) -> Job:
    metadata, conditions = obj["metadata"], (obj.get("status") or {}).get("conditions") or []
    return Job(
        **common,
        job=_owner(obj),
        admitted=(metadata.get("annotations") or {}).get(ADMITTED_ANNOTATION, ""),
        suspended=bool(obj["spec"].get("suspend", False)),
        ended=any(each["type"] in _OVER and each["status"] == "True" for each in conditions),
        terminating="deletionTimestamp" in metadata,
    )


def training_job_of(obj: Object, **common: Any) -> TrainingJob:
    spec, status = obj["spec"], obj.get("status") or {}
    resources, queue = spec["resources"], status.get("queue") or {}
    return TrainingJob(
        **common,
        priority=int((spec.get("queue") or {}).get("priority", 5)),
        gpus=int(resources.get("gpus", 1)),
        nodes=int(resources.get("nodes", 1)),
        phase=status.get("phase") or "",
        stamp=queue.get("enqueuedAt") or "",
        reason=queue.get("reason") or "",
        message=status.get("message") or "",
        position=queue.get("position"),
        length=queue.get("length"),
        estimate=queue.get("estimatedStartTime") or "",
        basis=queue.get("estimateBasis") or "",
        selector=json.dumps(resources.get("nodeSelector") or {}, sort_keys=True),
    )


_TRAINING_JOBS = "/apis/trainyard.dev/v1alpha1/trainingjobs"
KINDS: dict[str, Callable[..., Change]] = {
    "/api/v1/nodes": node_of,
    "/api/v1/pods": pod_of,
    "/apis/batch/v1/jobs": job_of,
    _TRAINING_JOBS: training_job_of,
}


class History:
    """All changes since its creation, except of TrainingJobs that existed before; four threads append to it."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes
        self._changes: list[Change] = []
        self.ended: set[str] = set()
        self.gaps: list[str] = []
        self._changed_at = time.monotonic()
        self._stopped = threading.Event()
        self._lists = {path: kubernetes.client.get(path) for path in KINDS}
        self._old = {item["metadata"]["uid"] for item in self._lists[_TRAINING_JOBS]["items"]}
        for path, read in KINDS.items():
            for item in self._lists[path]["items"]:
                self._take(item, read, gone=False)
            threading.Thread(target=self._follow, args=(kubernetes, path, read), daemon=True).start()

    def changes(self) -> list[Change]:
        """Return the changes so far, in order."""
        return sorted(self._changes[:], key=lambda change: change.rv)

    def is_quiet(self, seconds: float) -> bool:
        """Return whether no job or pod has changed for some seconds."""
        return time.monotonic() - self._changed_at >= seconds

    def is_complete(self) -> bool:
        """Return whether the newest version of every object is recorded."""
        seen = {change.uid: change.rv for change in self.changes()}
        listed = [item["metadata"] for path in KINDS for item in self._kubernetes.client.get(path)["items"]]
        ours = [one for one in listed if one["uid"] in seen]
        return bool(self.gaps) or all(seen[one["uid"]] >= int(one["resourceVersion"]) for one in ours)

    def stop(self) -> None:
        """Stop recording."""
        self._stopped.set()

    def _follow(self, kubernetes: Kubernetes, path: str, read: Callable[..., Change]) -> None:
        version = str(self._lists[path]["metadata"]["resourceVersion"])
        while not self._stopped.is_set():
            try:
                version = self._watch(kubernetes, path, version, read)
            except (OSError, ApiError) as error:
                if self._stopped.is_set():
                    return
                self.gaps.append(f"{path}: {error}")  # the watch resumes from the same version, so nothing is lost
            except LostError as error:
                self.gaps.append(f"LOST {path}: {error}")
                return

    def _watch(self, kubernetes: Kubernetes, path: str, version: str, read: Callable[..., Change]) -> str:
        options = f"?watch=true&allowWatchBookmarks=true&timeoutSeconds=600&resourceVersion={version}"
        request = urllib.request.Request(kubernetes.cluster.server + path + options)
        with kubernetes.client._open(request, timeout=900) as answer:
            for line in answer:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise LostError(str(event["object"].get("message")))
                version = str(event["object"]["metadata"]["resourceVersion"])
                if event["type"] != "BOOKMARK":
                    self._take(event["object"], read, gone=event["type"] == "DELETED")
                if self._stopped.is_set():
                    break
        return version

    def _take(self, obj: Object, read: Callable[..., Change], *, gone: bool) -> None:
        metadata = obj["metadata"]
        name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        common = {"rv": int(metadata["resourceVersion"]), "at": time.time(), "uid": metadata["uid"], "name": name}
        change = read(obj, **common, gone=gone)
        if change.uid in self._old or (isinstance(change, Job | Pod) and change.job in self._old):
            return
        self._changes.append(change)
        if not isinstance(change, Node):
            self._changed_at = time.monotonic()
        if isinstance(change, TrainingJob) and change.ended:
            self.ended.add(change.uid)


class LostError(Exception):
    """The API server compacted changes after the last event: checks would miss some."""
