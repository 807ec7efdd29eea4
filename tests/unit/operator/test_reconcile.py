"""The shell round the plan, where its requests are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import (
    CHILD,
    CHILD_UID,
    NAME,
    NAMESPACE,
    SETTINGS,
    UID,
    new_job,
    observed_of,
)
from trainyard_crds.constants import JOB_UID_LABEL, ROLE_LABEL
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ApiRefusedError, ConflictError, ForbiddenError, NotFoundError, ServerError
from trainyard_kube.events import EventWriter
from trainyard_operator.admission.decision import Admission, KueueHandoff
from trainyard_operator.kube.store import Key, ResourceKind, Store
from trainyard_operator.trainingjob.children.render import TRAIN_ROLE, children
from trainyard_operator.trainingjob.kueue_adapter import PRIORITY_LABEL, QUEUE_LABEL
from trainyard_operator.trainingjob.reconcile import Reconciler

MOMENT = "2026-01-02T10:00:00Z"


def event_writer(kube: Any, clock: ServerClock) -> EventWriter:
    return EventWriter(kube, clock, controller="operator", instance="one")


class Empty:
    """An API server on which everything has been deleted."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def get(self, url: str) -> Any:
        self.requests.append(f"GET {url}")
        raise NotFoundError(404, "NotFound", "gone")

    async def merge(self, url: str, _: Any) -> Any:
        self.requests.append(f"PATCH {url}")
        raise NotFoundError(404, "NotFound", "gone")


class Short:
    """An API server on which a quota is used up."""

    def __init__(self) -> None:
        self.written: dict[str, Any] = {}

    async def create(self, _url: str, _body: Any) -> Any:
        raise ForbiddenError(
            403, "Forbidden", 'jobs.batch "tune" is forbidden: exceeded quota: jobs, used: 3, limited: 3'
        )

    async def merge(self, _: str, body: Any) -> Any:
        self.written = body["status"]
        return {**new_job(), "status": self.written}


class Contended:
    """An API server that answers deletions with 409; the object that has the name has that UID."""

    def __init__(self, uid: str) -> None:
        self.uid = uid

    async def get(self, url: str) -> Any:
        return {"metadata": {"uid": self.uid}} if "/jobs/" in url else {**new_job(), "status": {"phase": "Stopped"}}

    async def delete(self, _url: str, *, uid: str, grace: int | None) -> Any:
        raise ConflictError(409, "Conflict", f"{uid} {grace}")


@pytest.mark.parametrize(("uid", "again"), [(CHILD_UID, True), ("another", False)])
async def test_a_deletion_that_met_a_conflict_is_made_again_where_the_object_is_still_there(
    uid: str, again: bool
) -> None:
    store, kube, clock = Store(), Contended(uid), ServerClock()
    key = store.put(ResourceKind.TRAINING_JOBS, {**new_job(), "status": {"phase": "Stopped"}})
    assert key is not None
    metadata = {"name": CHILD, "namespace": NAMESPACE, "uid": CHILD_UID, "resourceVersion": "1"}
    labels = {ROLE_LABEL: TRAIN_ROLE, JOB_UID_LABEL: UID}
    owner = [{"controller": True, "uid": UID}]
    child = {"metadata": {**metadata, "labels": labels, "ownerReferences": owner}, "spec": {"suspend": True}}
    store.put(ResourceKind.JOBS, child)
    server: Any = kube
    reconciler = Reconciler(server, store, event_writer(server, clock), clock, settings=SETTINGS)
    if again:
        with pytest.raises(ConflictError):
            await reconciler.reconcile(key)
    else:
        await reconciler.reconcile(key)


async def test_a_quota_that_refuses_a_child_is_told_as_such() -> None:
    store, short = Store(), Short()
    key = store.put(ResourceKind.TRAINING_JOBS, {**new_job(), "status": {}})
    assert key is not None
    kube: Any = short
    clock = ServerClock()
    reconciler = Reconciler(kube, store, event_writer(kube, clock), clock, settings=SETTINGS)
    assert (await reconciler.reconcile(key)).failed
    assert short.written["phase"] == "Pending"
    assert {entry["reason"] for entry in short.written["conditions"]} >= {"QuotaExceeded"}
    assert "exceeded quota: jobs, used: 3, limited: 3" in short.written["message"]


async def test_a_job_that_is_gone_is_not_worked_on_while_its_watch_is_late() -> None:
    store, empty = Store(), Empty()
    key = store.put(ResourceKind.TRAINING_JOBS, {**new_job(), "status": {"phase": "Running", "jobName": CHILD}})
    assert key == Key(NAMESPACE, NAME)
    kube: Any = empty
    clock = ServerClock()
    reconciler = Reconciler(kube, store, event_writer(kube, clock), clock, settings=SETTINGS)
    await reconciler.reconcile(key)
    assert [line.split()[0] for line in empty.requests] == ["GET", "PATCH"]
    assert store.all_keys() == []
    await reconciler.reconcile(key)
    assert len(empty.requests) == 2


class Leaving(Short):
    """An API server that answers a ConfigMap that would be made."""

    def __init__(self, answer: ApiRefusedError | None) -> None:
        super().__init__()
        self.answer = answer

    async def create(self, _url: str, _body: Any, *, dry_run: bool = False) -> Any:
        assert dry_run, "nothing is made to find out"
        if self.answer is not None:
            raise self.answer
        return {}


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (ForbiddenError(403, "Forbidden", "it is being terminated", ["NamespaceTerminating"]), True),
        (ForbiddenError(403, "Forbidden", "exceeded quota: configmaps"), False),
        (ConflictError(409, "AlreadyExists", "it exists"), False),
        (None, False),
    ],
)
async def test_whether_a_namespace_is_being_deleted_is_heard_from_what_it_would_refuse(
    answer: ApiRefusedError | None, ends: bool
) -> None:
    store, server, clock = Store(), Leaving(answer), ServerClock()
    job = new_job()
    job["spec"]["resources"] = {"nodes": 2, "gpus": 0}
    key = store.put(ResourceKind.TRAINING_JOBS, {**job, "status": {"phase": "Running", "jobName": CHILD}})
    assert key is not None
    store.put(ResourceKind.JOBS, owned("Job", CHILD, CHILD_UID, (NAME, UID)))
    ended = owned("Pod", f"{CHILD}-0-a", "p", (CHILD, CHILD_UID))
    ended["metadata"] |= {"deletionTimestamp": MOMENT, "finalizers": ["batch.kubernetes.io/job-tracking"]}
    store.put(ResourceKind.PODS, {**ended, "status": {"phase": "Failed"}})
    kube: Any = server
    await Reconciler(kube, store, event_writer(kube, clock), clock, settings=SETTINGS).reconcile(key)
    assert (server.written["phase"] == "Stopped") is ends


def owned(kind: str, name: str, uid: str, owner: tuple[str, str]) -> Any:
    reference = {"controller": True, "kind": "Job" if kind == "Pod" else "TrainingJob"}
    metadata: Any = {"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": "5"}
    metadata |= {"creationTimestamp": MOMENT}
    metadata |= {"labels": {ROLE_LABEL: TRAIN_ROLE, JOB_UID_LABEL: UID}}
    return {
        "kind": kind,
        "metadata": {**metadata, "ownerReferences": [{**reference, "name": owner[0], "uid": owner[1]}]},
        "spec": {"suspend": False, "backoffLimit": 3} if kind == "Job" else {},
    }


WEBHOOK = 'Internal error occurred: failed calling webhook "mjob.kb.io": connection refused'
LABELS = {QUEUE_LABEL: "gpus", PRIORITY_LABEL: "trainyard-p9"}


class Refusing:
    """An API server that takes everything but what it is told to refuse."""

    def __init__(self, *, creates: ApiRefusedError | None = None, merges: ApiRefusedError | None = None) -> None:
        self._creates, self._merges = creates, merges
        self.status: Any = {}
        self.patched: list[str] = []
        self.job = new_job()

    async def get(self, _: str) -> Any:
        return {**self.job, "metadata": {**self.job["metadata"], "resourceVersion": "2"}}

    async def create(self, _: str, body: Any) -> Any:
        if self._creates is not None:
            raise self._creates
        return body

    async def merge(self, url: str, patch: Any) -> Any:
        if url.endswith("/status"):
            self.status = patch["status"]
            return {**new_job(), "metadata": {**new_job()["metadata"], "resourceVersion": "3"}}
        self.patched.append(url)
        if self._merges is not None:
            raise self._merges
        known = {"name": "w", "namespace": NAMESPACE, "resourceVersion": "9", "uid": "w"}
        return {"spec": {}, **patch, "metadata": {**patch["metadata"], **known}}


class Shell:
    """A reconciler of one job that waits in Kueue."""

    def __init__(self, kube: Refusing, workload: Any = None) -> None:
        self.store, self.took = Store(), []
        raw: Any = kube
        clock = ServerClock()
        found = Admission(admitted=False, reason="Waits", message="It waits.", handoff=KueueHandoff(LABELS, workload))
        self.admission = found
        self.reconciler = Reconciler(
            raw,
            self.store,
            event_writer(raw, clock),
            clock,
            settings=SETTINGS,
            admit=lambda _: self.admission,
            took=self.took.append,
        )
        key = self.store.put(ResourceKind.TRAINING_JOBS, new_job())
        assert key is not None
        self.key = key

    took: list[Any]

    def give_child(self) -> None:
        labels = {
            **children(observed_of(new_job()), SETTINGS, self.admission)[-1]["metadata"]["labels"],
            PRIORITY_LABEL: "trainyard-p1",
        }
        owner = {"controller": True, "uid": UID, "kind": "TrainingJob", "name": NAME}
        metadata = {"name": CHILD, "namespace": NAMESPACE, "uid": "c", "resourceVersion": "5", "labels": labels}
        metadata |= {"ownerReferences": [owner], "creationTimestamp": "2026-01-02T10:00:00Z"}
        self.store.put(ResourceKind.JOBS, {"metadata": metadata, "spec": {"suspend": True, "backoffLimit": 3}})


async def test_a_webhook_that_does_not_answer_lets_the_job_wait_and_is_asked_again() -> None:
    kube = Refusing(creates=ServerError(500, "InternalError", WEBHOOK))
    shell = Shell(kube)
    shell.admission = shell.admission._replace(admitted=True)
    result = await shell.reconciler.reconcile(shell.key)
    assert (kube.status["phase"], result.failed) == ("Queued", True)
    assert "mjob.kb.io" in kube.status["message"]


async def test_another_fault_of_the_server_is_nothing_to_tell() -> None:
    shell = Shell(Refusing(creates=ServerError(500, "InternalError", "etcdserver: request timed out")))
    shell.admission = shell.admission._replace(admitted=True)
    with pytest.raises(ServerError):
        await shell.reconciler.reconcile(shell.key)


async def test_a_change_that_a_dead_webhook_keeps_from_being_made_is_told_and_made_later() -> None:
    active = {"metadata": {"name": "w"}, "spec": {"active": True}}
    kube = Refusing(merges=ServerError(500, "InternalError", WEBHOOK))
    shell = Shell(kube, workload=active)
    shell.give_child()
    job = new_job()
    job["spec"]["suspend"] = True
    job["metadata"]["resourceVersion"] = "2"
    kube.job = job
    shell.store.put(ResourceKind.TRAINING_JOBS, job)
    result = await shell.reconciler.reconcile(shell.key)
    assert (kube.status["phase"], result.failed) == ("Suspending", True)
    assert kube.status["message"] == (
        "The job saves a checkpoint and frees its GPUs. The API server cannot change its Job now, and is asked again: "
        f"{WEBHOOK}"
    )


async def test_a_label_that_is_refused_does_not_keep_the_status_from_being_written() -> None:
    kube = Refusing(merges=ForbiddenError(403, "Forbidden", "queue-name is immutable"))
    shell = Shell(kube)
    shell.give_child()
    await shell.reconciler.reconcile(shell.key)
    assert [url.rsplit("/", 2)[-2:] for url in kube.patched] == [["jobs", CHILD]]
    assert kube.status["phase"] == "Queued"


async def test_the_answer_to_a_change_of_a_workload_is_known_at_once() -> None:
    held = {"metadata": {"name": "w", "annotations": {"trainyard.dev/held": "true"}}, "spec": {"active": False}}
    kube = Refusing()
    shell = Shell(kube, held)
    shell.give_child()
    await shell.reconciler.reconcile(shell.key)
    assert shell.took[0]["spec"] == {"active": True}
    assert any(url == f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads/w" for url in kube.patched)
