"""Reconciles of one TrainingJob against an API server that refuses requests."""

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
from trainyard_kube.resource import Key
from trainyard_kube.store import Store
from trainyard_operator.admission.decision import Admission, KueueHandoff, admit_immediately
from trainyard_operator.queue.kueue_workload import QUEUE_LABEL
from trainyard_operator.reconcile.reconciler import Reconciler
from trainyard_operator.stored_resources import SPECS
from trainyard_operator.trainingjob.children.render import TRAIN_ROLE, children
from trainyard_operator.trainingjob.kind import TrainingJobs
from trainyard_operator.trainingjob.kueue_adapter import PRIORITY_LABEL
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.observe import Observer
from trainyard_operator.trainingjob.plan import Admit
from trainyard_operator.trainingjob.resources import ResourceKind

CREATED = "2026-01-02T10:00:00Z"
WEBHOOK = 'Internal error occurred: failed calling webhook "mjob.kb.io": connection refused'
LABELS = {QUEUE_LABEL: "gpus", PRIORITY_LABEL: "trainyard-p9"}


def reconciler_of(
    server: Any, store: Store, *, admit: Admit = admit_immediately, workloads: list[Any] | None = None
) -> Reconciler[Observed]:
    kind = TrainingJobs(
        store,
        Observer(store),
        settings=SETTINGS,
        admit=admit,
        ingest_workload=([] if workloads is None else workloads).append,
        unreachable_nodes={},
    )
    clock = ServerClock()
    return Reconciler(kind, server, EventWriter(server, clock, controller="operator", instance="one"), clock)


def stored(store: Store, **changes: Any) -> Key:
    key = store.put(ResourceKind.TRAINING_JOBS, {**new_job(), **changes})
    assert key is not None
    return key


def owned(kind: str, name: str, uid: str, owner: tuple[str, str]) -> Any:
    reference = {"controller": True, "kind": "Job" if kind == "Pod" else "TrainingJob"}
    metadata: Any = {"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": "5"}
    metadata |= {"creationTimestamp": CREATED, "labels": {ROLE_LABEL: TRAIN_ROLE, JOB_UID_LABEL: UID}}
    return {
        "kind": kind,
        "metadata": {**metadata, "ownerReferences": [{**reference, "name": owner[0], "uid": owner[1]}]},
        "spec": {"suspend": False, "backoffLimit": 3} if kind == "Job" else {},
    }


class EmptyServer:
    """An API server on which everything has been deleted."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def get(self, url: str) -> Any:
        self.requests.append(f"GET {url}")
        raise NotFoundError(404, "NotFound", "gone")

    async def merge(self, url: str, _: Any) -> Any:
        self.requests.append(f"PATCH {url}")
        raise NotFoundError(404, "NotFound", "gone")


class QuotaServer:
    """An API server on which a ResourceQuota is used up."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}

    async def create(self, _url: str, _body: Any) -> Any:
        message = 'jobs.batch "tune" is forbidden: exceeded quota: jobs, used: 3, limited: 3'
        raise ForbiddenError(403, "Forbidden", message)

    async def get(self, url: str) -> Any:
        raise NotFoundError(404, "NotFound", url)

    async def merge(self, _: str, body: Any) -> Any:
        self.status = body["status"]
        return {**new_job(), "status": self.status}


class ConflictServer:
    """An API server that answers deletions with 409; the object of that name has the given UID."""

    def __init__(self, uid: str) -> None:
        self.uid = uid

    async def get(self, url: str) -> Any:
        return {"metadata": {"uid": self.uid}} if "/jobs/" in url else {**new_job(), "status": {"phase": "Stopped"}}

    async def delete(self, _url: str, *, uid: str, grace: int | None) -> Any:
        raise ConflictError(409, "Conflict", f"{uid} {grace}")


class ProbedServer(QuotaServer):
    """An API server that answers dry-run creates."""

    def __init__(self, answer: ApiRefusedError | None) -> None:
        super().__init__()
        self.answer = answer

    async def create(self, _url: str, _body: Any, *, dry_run: bool = False) -> Any:
        assert dry_run, "the probe creates nothing"
        if self.answer is not None:
            raise self.answer
        return {}


class FaultyServer:
    """An API server that accepts everything but what it was set up to refuse."""

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


class KueueJob:
    """A TrainingJob that waits in Kueue, and its reconciler."""

    def __init__(self, server: FaultyServer, workload: Any = None) -> None:
        self.store, self.workloads = Store(SPECS), list[Any]()
        handoff = KueueHandoff(LABELS, workload)
        self.admission = Admission(admitted=False, reason="Waits", message="It waits.", handoff=handoff)
        self.reconciler = reconciler_of(server, self.store, admit=lambda _: self.admission, workloads=self.workloads)
        self.key = stored(self.store)

    def add_child(self) -> None:
        rendered = children(observed_of(new_job()), SETTINGS, self.admission)[-1]["metadata"]["labels"]
        child = owned("Job", CHILD, "c", (NAME, UID))
        child["metadata"]["labels"] = {**rendered, PRIORITY_LABEL: "trainyard-p1"}
        self.store.put(ResourceKind.JOBS, {**child, "spec": {"suspend": True, "backoffLimit": 3}})


@pytest.mark.parametrize(("uid", "retried"), [(CHILD_UID, True), ("another", False)])
async def test_deletion_conflict_is_retried_while_the_object_exists(uid: str, retried: bool) -> None:
    store = Store(SPECS)
    key = stored(store, status={"phase": "Stopped"})
    store.put(ResourceKind.JOBS, owned("Job", CHILD, CHILD_UID, (NAME, UID)))
    reconciler = reconciler_of(ConflictServer(uid), store)
    if retried:
        with pytest.raises(ConflictError):
            await reconciler.reconcile(key)
    else:
        await reconciler.reconcile(key)


async def test_exceeded_quota_is_reported_and_retried() -> None:
    store, server = Store(SPECS), QuotaServer()
    key = stored(store, status={})
    assert (await reconciler_of(server, store).reconcile(key)).failed
    assert server.status["phase"] == "Pending"
    assert {entry["reason"] for entry in server.status["conditions"]} >= {"QuotaExceeded"}
    assert "exceeded quota: jobs, used: 3, limited: 3" in server.status["message"]


async def test_deleted_job_is_dropped_while_the_watch_is_late() -> None:
    store, server = Store(SPECS), EmptyServer()
    key = stored(store, status={"phase": "Running", "jobName": CHILD})
    reconciler = reconciler_of(server, store)
    await reconciler.reconcile(key)
    assert [line.split()[0] for line in server.requests] == ["GET", "PATCH"]
    assert store.all_keys() == []
    await reconciler.reconcile(key)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (ForbiddenError(403, "Forbidden", "it is being terminated", ["NamespaceTerminating"]), True),
        (ForbiddenError(403, "Forbidden", "exceeded quota: configmaps"), False),
        (ConflictError(409, "AlreadyExists", "it exists"), False),
        (None, False),
    ],
)
async def test_dry_run_create_shows_whether_the_namespace_terminates(
    answer: ApiRefusedError | None, ends: bool
) -> None:
    store, server = Store(SPECS), ProbedServer(answer)
    spec = {**new_job()["spec"], "resources": {"nodes": 2, "gpus": 0}}
    key = stored(store, spec=spec, status={"phase": "Running", "jobName": CHILD})
    store.put(ResourceKind.JOBS, owned("Job", CHILD, CHILD_UID, (NAME, UID)))
    ended = owned("Pod", f"{CHILD}-0-a", "p", (CHILD, CHILD_UID))
    ended["metadata"] |= {"deletionTimestamp": CREATED, "finalizers": ["batch.kubernetes.io/job-tracking"]}
    store.put(ResourceKind.PODS, {**ended, "status": {"phase": "Failed"}})
    await reconciler_of(server, store).reconcile(key)
    assert (server.status["phase"] == "Stopped") is ends


async def test_create_is_retried_while_a_webhook_is_down() -> None:
    server = FaultyServer(creates=ServerError(500, "InternalError", WEBHOOK))
    job = KueueJob(server)
    job.admission = job.admission._replace(admitted=True)
    result = await job.reconciler.reconcile(job.key)
    assert (server.status["phase"], result.failed) == ("Queued", True)
    assert "mjob.kb.io" in server.status["message"]


async def test_other_server_errors_are_raised() -> None:
    job = KueueJob(FaultyServer(creates=ServerError(500, "InternalError", "etcdserver: request timed out")))
    job.admission = job.admission._replace(admitted=True)
    with pytest.raises(ServerError):
        await job.reconciler.reconcile(job.key)


async def test_change_is_reported_and_retried_while_a_webhook_is_down() -> None:
    server = FaultyServer(merges=ServerError(500, "InternalError", WEBHOOK))
    job = KueueJob(server, workload={"metadata": {"name": "w"}, "spec": {"active": True}})
    job.add_child()
    suspended = new_job()
    suspended["spec"]["suspend"] = True
    suspended["metadata"]["resourceVersion"] = "2"
    server.job = suspended
    job.store.put(ResourceKind.TRAINING_JOBS, suspended)
    result = await job.reconciler.reconcile(job.key)
    assert (server.status["phase"], result.failed) == ("Suspending", True)
    assert server.status["message"] == (
        "The job saves a checkpoint and frees its GPUs. The API server cannot make this change now; the operator "
        f"retries: {WEBHOOK}"
    )


async def test_status_is_written_though_a_label_is_refused() -> None:
    server = FaultyServer(merges=ForbiddenError(403, "Forbidden", "queue-name is immutable"))
    job = KueueJob(server)
    job.add_child()
    await job.reconciler.reconcile(job.key)
    assert [url.rsplit("/", 2)[-2:] for url in server.patched] == [["jobs", CHILD]]
    assert server.status["phase"] == "Queued"


async def test_patched_workload_is_ingested() -> None:
    held = {"metadata": {"name": "w", "annotations": {"trainyard.dev/held": "true"}}, "spec": {"active": False}}
    server = FaultyServer()
    job = KueueJob(server, held)
    job.add_child()
    await job.reconciler.reconcile(job.key)
    assert job.workloads[0]["spec"] == {"active": True}
    assert any(url == f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads/w" for url in server.patched)
