"""A small controller that replaces Kueue, with its published CRDs and the objects that Kueue 0.19 writes.

It creates a Workload for each labelled Job, reserves quota in order, starts and stops Jobs, preempts and deactivates as
Kueue does. A proxy in front of the API server serves the aggregated visibility API.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from cluster import binaries
from cluster.client import Client
from tests.api.chart_support import MINIMAL, render
from tests.api.gateway_support import TIMEOUT, Kubernetes, until
from trainyard_kube.errors import ApiError, ApiRefusedError

Object = dict[str, Any]
KINDS = ("workloads", "clusterqueues", "localqueues", "resourceflavors", "workloadpriorityclasses")
GROUP = "/apis/kueue.x-k8s.io/v1beta2"
CHART = ("--set=queue.mode=Kueue",)
FLAVOR, FLAVOR_LABEL = "default-flavor", {"example.dev/pool": "a"}
QUEUE, CLUSTER_QUEUE = "gpus", "gpus"
GPU = "nvidia.com/gpu"
_STOPPING = "kueue.x-k8s.io/stopping"
_FINALIZER = "kueue.x-k8s.io/resource-in-use"
_LOST_RACES = (0, 404, 409, 429, 504)
"""Status codes of conflicts, of a kind that was just installed, and of a busy API server; the next step retries."""
_DEACTIVATED = "The workload is deactivated"


def install(kubernetes: Kubernetes) -> None:
    """Install Kueue's CRDs and the priority classes of the chart."""
    folder = binaries.source("sigs.k8s.io/kueue", binaries.KUEUE) / "config/components/crd/bases"
    for kind in KINDS:
        kubernetes.kubectl("apply", "--server-side", "-f", str(folder / f"kueue.x-k8s.io_{kind}.yaml"))
        established(kubernetes, f"{kind}.kueue.x-k8s.io")
    priority_classes(kubernetes)


def priority_classes(kubernetes: Kubernetes) -> None:
    """Make the priority classes of the chart."""
    classes = [entry for entry in render(MINIMAL, *CHART) if entry["kind"] == "WorkloadPriorityClass"]
    assert len(classes) == 11
    kubernetes.apply(*classes)


def established(kubernetes: Kubernetes, name: str) -> None:
    """Wait until a CRD is served; `kubectl wait` fails where its status is still empty."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    until(lambda: _holds({"status": kubernetes.client.get(path).get("status") or {}}, "Established"))


def cluster_queue(kubernetes: Kubernetes, gpus: int, *, preempts: bool = False) -> None:
    """Make the ClusterQueue, with its ResourceFlavor, or change its quota."""
    policy = {"withinClusterQueue": "LowerPriority" if preempts else "Never"}
    quota = {"name": FLAVOR, "resources": [{"name": GPU, "nominalQuota": gpus}]}
    kubernetes.apply(
        _kueue("ResourceFlavor", FLAVOR, {"nodeLabels": FLAVOR_LABEL}),
        _kueue(
            "ClusterQueue",
            CLUSTER_QUEUE,
            {
                "namespaceSelector": {},
                "preemption": policy,
                "resourceGroups": [{"coveredResources": [GPU], "flavors": [quota]}],
            },
        ),
    )


def local_queue(kubernetes: Kubernetes, namespace: str, name: str = QUEUE) -> None:
    """Make a LocalQueue of the ClusterQueue."""
    body = _kueue("LocalQueue", name, {"clusterQueue": CLUSTER_QUEUE})
    kubernetes.client.apply(f"{GROUP}/namespaces/{namespace}/localqueues/{name}", body)


def _kueue(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Manager:
    """Kueue's manager; one step after another in a thread, from `start` to `stop`.

    Attributes:
        errors: Errors of its steps, except conflicts.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.errors: list[str] = []

    def start(self) -> None:
        self._end.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(TIMEOUT)

    def _run(self) -> None:
        while not self._end.wait(0.1):
            try:
                self.step()
            except ApiError as error:
                if not isinstance(error, ApiRefusedError) or error.code not in _LOST_RACES:
                    self.errors.append(str(error))

    def step(self) -> None:
        """Reconcile all Jobs and Workloads once."""
        jobs = {job["metadata"]["uid"]: job for job in self._jobs()}
        workloads = {workload["metadata"]["labels"]["kueue.x-k8s.io/job-uid"]: workload for workload in self.pending()}
        for uid, job in jobs.items():
            if uid not in workloads and not _ended(job):
                self._create_workload(job)
        for uid, workload in workloads.items():
            if uid in jobs and "deletionTimestamp" not in workload["metadata"]:
                self._sync(workload, jobs[uid])
            else:
                self._drop(workload)
        self._schedule()

    def pending(self) -> list[Object]:
        """All Workloads."""
        found: list[Object] = self._client.get(f"{GROUP}/workloads")["items"]
        return found

    def positions(self, namespace: str, queue: str) -> list[Object]:
        """Return the items of the visibility API for a LocalQueue."""
        listed = self._client.get(f"{GROUP}/localqueues")["items"]
        queues = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in listed}
        waiting = sorted((one for one in self.pending() if _waits(one) and _queue_of(one) in queues), key=_order)
        return [
            {
                "metadata": {**one["metadata"], "managedFields": None},
                "priority": one["spec"].get("priority", 0),
                "localQueueName": one["spec"]["queueName"],
                "positionInClusterQueue": index,
                "positionInLocalQueue": index,
            }
            for index, one in enumerate(waiting)
            if _queue_of(one) == (namespace, queue)
        ]

    def reject(self, workload: Object, check: str, message: str) -> None:
        """Deactivate it as for an AdmissionCheck that rejects it."""
        text = f'AdmissionCheck in Rejected state: "{check}" ({message})'

        def is_written() -> bool:
            with suppress(ApiError):  # a race with the steps
                self._conditions(
                    self._client.get(_path(workload)), {"DeactivationTarget": ("True", "AdmissionCheck", text)}
                )
                return True
            return False

        until(is_written)
        self._client.patch(_path(workload), {"spec": {"active": False}})

    # --- one Job ------------------------------------------------------------------------------------------------------

    def _jobs(self) -> list[Object]:
        selector = "labelSelector=kueue.x-k8s.io%2Fqueue-name"
        found: list[Object] = self._client.get(f"/apis/batch/v1/jobs?{selector}")["items"]
        return found

    def _create_workload(self, job: Object) -> None:
        if not job["spec"].get("suspend"):
            self._stop_job(job)
        metadata, spec = job["metadata"], job["spec"]
        digest = hashlib.sha1(f"Job\nbatch\n{metadata['name']}\n{metadata['uid']}".encode()).hexdigest()[:5]
        name = f"job-{metadata['name']}-{digest}"
        template = spec["template"]
        body = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {
                "name": name,
                "labels": {"kueue.x-k8s.io/job-uid": metadata["uid"]},
                "finalizers": [_FINALIZER],
                "ownerReferences": [_owner(job)],
            },
            "spec": {
                "active": True,
                "queueName": metadata["labels"]["kueue.x-k8s.io/queue-name"],
                "podSets": [{"name": "main", "count": spec["parallelism"], "template": template}],
                **self._priority(job),
            },
        }
        self._client.apply(f"{GROUP}/namespaces/{metadata['namespace']}/workloads/{name}", body)

    def _priority(self, job: Object) -> Object:
        name = job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"]
        value = self._client.get(f"{GROUP}/workloadpriorityclasses/{name}")["value"]
        reference = {"group": "kueue.x-k8s.io", "kind": "WorkloadPriorityClass", "name": name}
        return {"priority": value, "priorityClassRef": reference}

    def _sync(self, workload: Object, job: Object) -> None:
        if _holds(workload, "Finished"):
            return
        self._pods_ready(workload, job)
        if _ended(job):
            text = "Reached expected number of succeeded pods"
            self._conditions(workload, {"Finished": ("True", "Succeeded", text)})
            self._client.patch(_path(workload), {"metadata": {"finalizers": None}})
        elif workload["spec"].get("active", True) is False and not _holds(workload, "Evicted"):
            self._conditions(workload, {"Evicted": _deactivation(workload)})
        elif _holds(workload, "Evicted"):
            self._evict(workload, job)
            self._reactivate(workload)
        elif job["spec"].get("suspend"):
            self._start_or_follow(workload, job)
        elif not _holds(workload, "Admitted"):
            self._stop_job(job)
        self._follow_priority(workload, job)

    def _evict(self, workload: Object, job: Object) -> None:
        if not job["spec"].get("suspend") or _STOPPING in (job["metadata"].get("annotations") or {}):
            self._stop_job(job)
        elif _holds(workload, "QuotaReserved") and not job["status"].get("active"):
            evicted = _condition(workload, "Evicted")
            again = "True" if evicted["reason"] == "Preempted" else "False"
            unadmitted = {"Admitted": ("False", "NoReservation", "The workload has no reservation")}
            conditions = {
                "QuotaReserved": ("False", "Pending", evicted["message"]),
                **(unadmitted if _condition(workload, "Admitted") else {}),
                "Requeued": (again, evicted["reason"], evicted["message"]),
            }
            self._conditions(workload, conditions, admission=None)

    def _reactivate(self, workload: Object) -> None:
        if workload["spec"].get("active", True) and _condition(workload, "Requeued").get("reason") == "Deactivated":
            self._conditions(workload, {"Requeued": ("True", "Reactivated", "The workload was reactivated")})

    def _pods_ready(self, workload: Object, job: Object) -> None:
        running = job["status"].get("ready", 0) >= job["spec"]["parallelism"]
        started = ("True", "Started", "All pods reached readiness and the workload is running")
        waits = ("False", "WaitForStart", "Not all pods are ready or succeeded")
        if not _ended(job):
            self._conditions(workload, {"PodsReady": started if running else waits})

    def _start_or_follow(self, workload: Object, job: Object) -> None:
        if _holds(workload, "Admitted"):
            template = {"spec": {"nodeSelector": FLAVOR_LABEL}}
            self._patch_job(job, {"spec": {"suspend": False, "template": template}})
        elif workload["spec"]["queueName"] != job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]:
            name = job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
            self._client.patch(_path(workload), {"spec": {"queueName": name}})

    def _stop_job(self, job: Object) -> None:
        """As Kueue does: suspend with a mark, clear the start time, restore the template, remove the mark."""
        self._patch_job(job, {"metadata": {"annotations": {_STOPPING: "true"}}, "spec": {"suspend": True}})
        if job["status"].get("startTime"):
            self._client.patch(f"{_path(job)}/status", {"status": {"startTime": None}})
        restored = dict.fromkeys(FLAVOR_LABEL)
        patch = {"spec": {"template": {"spec": {"nodeSelector": restored}}}}
        self._patch_job(job, {"metadata": {"annotations": {_STOPPING: None}}, **patch})

    def _follow_priority(self, workload: Object, job: Object) -> None:
        name = job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"]
        if workload["spec"]["priorityClassRef"]["name"] != name:
            self._client.patch(_path(workload), {"spec": self._priority(job)})

    def _drop(self, workload: Object) -> None:
        self._client.patch(_path(workload), {"metadata": {"finalizers": None}})
        self._client.delete(_path(workload))

    def _patch_job(self, job: Object, body: Object) -> None:
        self._client.patch(f"{_path(job)}?fieldManager=kueue", body)

    # --- quota --------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        with suppress(ApiError):
            queue = self._client.get(f"{GROUP}/clusterqueues/{CLUSTER_QUEUE}")["spec"]
            self._admit(queue)

    def _admit(self, queue: Object) -> None:
        quota = int(queue["resourceGroups"][0]["flavors"][0]["resources"][0]["nominalQuota"])
        held = [one for one in self.pending() if _holds(one, "QuotaReserved") and not _holds(one, "Finished")]
        free = quota - sum(_gpus(one) for one in held)
        for workload in sorted((one for one in self.pending() if _waits(one)), key=_order):
            if _is_left_out(workload) or not self._has_queue(workload):
                continue
            if _gpus(workload) > free:
                self._refuse(workload, _gpus(workload) - free, quota)
                self._preempt(workload, held, policy=queue["preemption"]["withinClusterQueue"])
                return
            free -= _gpus(workload)
            self._reserve(workload)

    def _has_queue(self, workload: Object) -> bool:
        name, namespace = workload["spec"]["queueName"], workload["metadata"]["namespace"]
        if self._client.exists(f"{GROUP}/namespaces/{namespace}/localqueues/{name}"):
            return True
        text = f"LocalQueue {name} doesn't exist"
        self._conditions(workload, {"QuotaReserved": ("False", "Inadmissible", text)})
        return False

    def _refuse(self, workload: Object, missing: int, quota: int) -> None:
        wanted = _gpus(workload)
        text = f"insufficient unused quota for {GPU} in flavor {FLAVOR}, {missing} more needed"
        if wanted > quota:
            text = (
                f"insufficient quota for {GPU} in flavor {FLAVOR}, previously considered podsets requests (0) + "
                f"current podset request ({wanted}) > maximum capacity ({quota})"
            )
        message = f"couldn't assign flavors to pod set main: {text}"
        self._conditions(workload, {"QuotaReserved": ("False", "Pending", message)})

    def _preempt(self, workload: Object, held: list[Object], *, policy: str) -> None:
        lower = [one for one in held if one["spec"]["priority"] < workload["spec"]["priority"]]
        if policy != "LowerPriority" or not lower or any(_holds(one, "Evicted") for one in lower):
            return
        text = (
            f"Preempted to accommodate a workload (UID: {workload['metadata']['uid']}, JobUID: "
            f"{workload['metadata']['labels']['kueue.x-k8s.io/job-uid']}) due to prioritization in the ClusterQueue; "
            f"preemptor path: /{CLUSTER_QUEUE}; preemptee path: /{CLUSTER_QUEUE}"
        )
        victim = max(lower, key=_order)
        conditions = {"Evicted": ("True", "Preempted", text), "Preempted": ("True", "InClusterQueue", text)}
        self._conditions(victim, conditions)

    def _reserve(self, workload: Object) -> None:
        assignment = {
            "name": "main",
            "count": workload["spec"]["podSets"][0]["count"],
            "flavors": {GPU: FLAVOR},
            "resourceUsage": {GPU: str(_gpus(workload))},
        }
        conditions = {
            "QuotaReserved": ("True", "QuotaReserved", f"Quota reserved in ClusterQueue {CLUSTER_QUEUE}"),
            "Admitted": ("True", "Admitted", "The workload is admitted"),
        }
        for kind in ("Evicted", "Preempted"):
            if _holds(workload, kind):
                text = f"Previously: {_condition(workload, kind)['message']}"
                conditions[kind] = ("False", "QuotaReserved", text)
        admission = {"clusterQueue": CLUSTER_QUEUE, "podSetAssignments": [assignment]}
        self._conditions(workload, conditions, admission=admission)

    def _conditions(self, workload: Object, changes: dict[str, tuple[str, str, str]], **status: Any) -> None:
        """Set the conditions that changed."""
        known = {entry["type"]: entry for entry in workload.get("status", {}).get("conditions", [])}
        before = dict(known)
        for kind, (value, reason, message) in changes.items():
            old = known.get(kind, {})
            moved = old.get("status") != value
            known[kind] = {
                "type": kind,
                "status": value,
                "reason": reason,
                "message": message,
                "lastTransitionTime": _now() if moved else old["lastTransitionTime"],
            }
        if known == before and not status:
            return
        version = {"resourceVersion": workload["metadata"]["resourceVersion"]}
        body = {"metadata": version, "status": {"conditions": list(known.values()), **status}}
        workload |= self._client.patch(f"{_path(workload)}/status", body)


def _path(obj: Object) -> str:
    metadata = obj["metadata"]
    root = GROUP if "podSets" in obj["spec"] else "/apis/batch/v1"
    plural = "workloads" if root == GROUP else "jobs"
    return f"{root}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def _owner(job: Object) -> Object:
    names = {"name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "controller": True, "blockOwnerDeletion": True, **names}


def _condition(obj: Object, kind: str) -> Object:
    found = [entry for entry in obj.get("status", {}).get("conditions") or [] if entry["type"] == kind]
    return found[0] if found else {}


def _holds(obj: Object, kind: str) -> bool:
    return _condition(obj, kind).get("status") == "True"


def _ended(job: Object) -> bool:
    return _holds(job, "Complete") or _holds(job, "Failed")


def _deactivation(workload: Object) -> tuple[str, str, str]:
    """The eviction of a Workload that a user or Kueue deactivated."""
    target = _condition(workload, "DeactivationTarget")
    if not target:
        return "True", "Deactivated", _DEACTIVATED
    return "True", f"DeactivatedDueTo{target['reason']}", f"{_DEACTIVATED} due to {target['message']}"


def _is_left_out(workload: Object) -> bool:
    """Return whether Kueue deactivated a Workload: once activated, it is listed but not requeued."""
    requeued = _condition(workload, "Requeued")
    return requeued.get("status") == "False" and str(requeued["reason"]).startswith("DeactivatedDueTo")


def _waits(workload: Object) -> bool:
    settled = _holds(workload, "QuotaReserved") or _holds(workload, "Finished")
    return workload["spec"].get("active", True) and not settled


def _queue_of(workload: Object) -> tuple[str, str]:
    return workload["metadata"]["namespace"], workload["spec"]["queueName"]


def _order(workload: Object) -> tuple[int, str, str]:
    return -workload["spec"]["priority"], workload["metadata"]["creationTimestamp"], workload["metadata"]["name"]


def _gpus(workload: Object) -> int:
    pods = workload["spec"]["podSets"][0]
    containers = pods["template"]["spec"]["containers"]
    each = sum(int(entry["resources"].get("limits", {}).get(GPU, 0)) for entry in containers)
    return int(each * pods["count"])
