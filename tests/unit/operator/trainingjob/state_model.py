"""A model of one TrainingJob and its children, to which plans can be applied."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from trainyard_crds.constants import ROLE_LABEL, TRAINER_CONTAINER, child_name
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission, admit_immediately
from trainyard_operator.queue.position import QueuePosition
from trainyard_operator.reconcile.plan import LOG, Need, Plan, Refusal
from trainyard_operator.trainingjob.children.gang import INDEX_LABEL
from trainyard_operator.trainingjob.children.render import EXPORT_ROLE
from trainyard_operator.trainingjob.kueue_adapter import kueue_admission
from trainyard_operator.trainingjob.model import Observed, RenderSettings
from trainyard_operator.trainingjob.plan import plan
from trainyard_operator.trainingjob.spec import parse_spec

NAME, NAMESPACE, UID = "tune", "team", "5f8c1d2e-0000-4000-8000-000000000001"
CHILD = child_name(NAME, UID)
CHILD_UID = "c0000000-0000-4000-8000-000000000001"
DAY = "2026-01-02T"
SETTINGS = RenderSettings(
    trainer_image="registry.local/trainer:1",
    image_pull_policy="IfNotPresent",
    gateway_url="https://trainyard-gateway.trainyard.svc:8443",
)
ADMITTED = Admission(
    admitted=True, reason="Admitted", message="", nodes=("n1",), admitted_at="2026-01-02T10:00:00.000001Z"
)
SPEC: Object = {
    "task": "llm",
    "method": "lora",
    "model": {"source": "pvc://models/tiny"},
    "dataset": {"source": "pvc://models/train.jsonl"},
    "suspend": False,
    "startDeadlineSeconds": 1800,
}


def at(clock: str) -> datetime:
    """A time on the day of the scenarios."""
    return datetime.fromisoformat(f"{DAY}{clock}").replace(tzinfo=UTC)


def need_of(kind: str, name: str) -> Need:
    """A look-up of a policy; logs are those of the trainer's container."""
    return Need(kind, name, TRAINER_CONTAINER if kind == LOG else "")


def suspends(planned: Plan) -> bool | None:
    """What the training Job's `spec.suspend` becomes; None where it stays."""
    found = [patch.body["spec"]["suspend"] for patch in planned.patches if patch.required]
    return found[0] if found else None


def observed_of(job: Object, **children: Any) -> Observed:
    """A TrainingJob with its spec parsed, and its children."""
    spec, error = parse_spec(job["spec"])
    return Observed(obj=job, spec=spec, spec_error=error, **children)


def new_job() -> Object:
    """A TrainingJob as the API server stores it."""
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": f"{DAY}10:00:00Z",
        },
        "spec": copy.deepcopy(SPEC),
    }


def new_pod(name: str, created: str, *, owner: str = CHILD, owner_uid: str = CHILD_UID) -> Object:
    """A pod of the training Job, as the informer keeps it; `0-a` is one of index 0 of a gang."""
    index = name.partition("-")[0]
    labels = {"labels": {INDEX_LABEL: index}} if index.isdecimal() else {}
    return {
        "metadata": {
            **labels,
            "name": f"{owner}-{name}",
            "namespace": NAMESPACE,
            "uid": f"pod-{name}",
            "creationTimestamp": created,
            "ownerReferences": [{"kind": "Job", "name": owner, "uid": owner_uid, "controller": True}],
        },
        "spec": {"image": SETTINGS.trainer_image},
        "status": {"phase": "Pending"},
    }


def kept(job: Object, created: str) -> Object:
    """What the informer keeps of a new batch Job."""
    return {
        "metadata": {
            "name": job["metadata"]["name"],
            "namespace": NAMESPACE,
            "uid": CHILD_UID,
            "resourceVersion": "7",
            "creationTimestamp": created,
            "labels": job["metadata"]["labels"],
        },
        "spec": {
            "suspend": job["spec"].get("suspend", False),
            "backoffLimit": job["spec"].get("backoffLimit", 2**31 - 1),
            "image": job["spec"]["template"]["spec"]["containers"][0]["image"],
        },
        "status": {},
    }


def merged(target: Any, change: Any) -> Any:
    """RFC 7386: objects merge, null removes, everything else replaces."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


class JobModel:
    """One TrainingJob with its children."""

    def __init__(self) -> None:
        self.job = new_job()
        self.child: Object | None = None
        self.pods: dict[str, Object] = {}
        self.check: Object | None = None
        self.check_pods: dict[str, Object] = {}
        self.export_jobs: dict[str, Object] = {}
        self.export_pods: dict[str, Object] = {}
        self.answers: dict[Need, Any] = {}
        self.refusal: Refusal | None = None
        self.unreachable_nodes: dict[str, str] = {}
        self.admission: Admission | None = None
        self.kueue: Object | None = None
        self.workload: Object | None = None
        self.now = at("10:00:00")

    @property
    def stamp(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def observed(self) -> Observed:
        return observed_of(
            self.job,
            child=self.child,
            pods=tuple(self.pods.values()),
            check=self.check,
            check_pods=tuple(self.check_pods.values()),
            export_jobs=tuple(self.export_jobs.values()),
            export_pods=tuple(self.export_pods.values()),
            answers=self.answers,
            refusal=self.refusal,
            unreachable_nodes=self.unreachable_nodes,
        )

    def plan(self) -> Plan:
        return plan(self.observed(), SETTINGS, self.now, self._admit)

    def _admit(self, observed: Observed) -> Admission:
        if self.kueue is None:
            return self.admission or admit_immediately(observed)
        position = self.kueue.get("place")
        return kueue_admission(
            observed,
            default_queue=self.kueue.get("default"),
            problem=self.kueue.get("problem"),
            workload=self.workload,
            position=QueuePosition(*position) if position else None,
            now=self.now,
        )

    def apply(self, done: Plan) -> None:
        """Apply a plan as the API server would."""
        for body in done.create:
            if body["kind"] != "Job":
                continue
            name = body["metadata"]["name"]
            if body["metadata"]["labels"][ROLE_LABEL] == EXPORT_ROLE:
                self.export_jobs[name] = merged(kept(body, self.stamp), {"metadata": {"uid": f"{name} {self.stamp}"}})
            elif name.endswith("-check"):
                self.check = kept(body, self.stamp)
            else:
                self.child = kept(body, self.stamp)
        self._patch(done)
        for deletion in done.delete:
            if deletion.name in self.export_jobs:
                self.delete_export_job(deletion.name)
            elif deletion.kind == "jobs":
                self.child = None
            else:
                self._delete_pod(deletion.uid, deletion.grace)
        if done.status:
            self.job = merged(self.job, {"status": done.status})

    def _patch(self, done: Plan) -> None:
        for patch in done.patches:
            if patch.kind == "workloads":
                self.workload = merged(self.workload, patch.body)
            elif patch.name in self.export_jobs:
                self.export_jobs[patch.name] = merged(self.export_jobs[patch.name], patch.body)
            else:
                self.child = merged(self.child, patch.body)

    def delete_export_job(self, name: str) -> None:
        """Delete an export's Job; the garbage collector deletes its pods."""
        uid = self.export_jobs.pop(name)["metadata"]["uid"]
        pods = self.export_pods.items()
        self.export_pods = {key: pod for key, pod in pods if pod["metadata"]["ownerReferences"][0]["uid"] != uid}

    def _delete_pod(self, uid: str, grace: int | None) -> None:
        for name, pod in list(self.pods.items()):
            if pod["metadata"]["uid"] == uid and grace == 0:
                del self.pods[name]
            elif pod["metadata"]["uid"] == uid:
                change = {"deletionTimestamp": self.stamp, "deletionGracePeriodSeconds": grace}
                self.pods[name] = merged(pod, {"metadata": change})
