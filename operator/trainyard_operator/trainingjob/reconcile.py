"""Applies the plan for one TrainingJob: the thin shell between the pure decisions and the API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from trainyard_crds.constants import JOB_UID_LABEL, TRAINER_CONTAINER, TRAINING_JOBS
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock, monotonic
from trainyard_kube.errors import (
    ApiError,
    ApiRefusedError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
)
from trainyard_kube.events import EventWriter
from trainyard_kube.nodes import NodeLabels
from trainyard_kube.paths import CLAIMS, CONFIG_MAPS, JOBS, PODS, SERVICES, path
from trainyard_operator.admission.decision import admit_immediately
from trainyard_operator.admission.kueue_workloads import WORKLOADS
from trainyard_operator.errors import ForeignObjectError
from trainyard_operator.kube.store import Key, ResourceKind, Store
from trainyard_operator.kube.workqueue import Result
from trainyard_operator.trainingjob.final_status import FINAL_KEYS
from trainyard_operator.trainingjob.k8s_fields import owned_by
from trainyard_operator.trainingjob.model import Deletion, Need, Object, Observed, Patch, Plan, Refusal, RenderSettings
from trainyard_operator.trainingjob.observe import Observer
from trainyard_operator.trainingjob.plan import Admit, plan
from trainyard_operator.trainingjob.pods.gang_faults import is_past
from trainyard_operator.trainingjob.policies.post_run_exports import is_unfinished

logger = logging.getLogger(__name__)

_LOG_LINES, _LOG_BYTES = "60", "65536"
_COLLECTIONS = {
    "ConfigMap": CONFIG_MAPS,
    "PersistentVolumeClaim": CLAIMS,
    "Service": SERVICES,
    "Job": JOBS,
    "jobs": JOBS,
    "pods": PODS,
    "workloads": WORKLOADS,
    "claims": CLAIMS,
}
_DEAD_WEBHOOK = "failed calling webhook"
"""In the API server's answer (500) when a webhook that may not be passed by does not answer."""

_PROBE, _TERMINATING = "trainyard-probe", "NamespaceTerminating"
"""An object that is never made, and the cause that the API server gives where it would not be for this reason."""


class Reconciler:
    """Brings one TrainingJob after another to where its plan wants it.

    Args:
        kube: The API server.
        store: What is known; takes the answers to our own writes at once.
        events: Writes Events.
        clock: The time.
        settings: What goes into children.
        admit: Who decides whether a job may start.
        took: Takes the answer to each change of a Workload.
        silent_nodes: Nodes that do not answer now, and since when (API timestamps).
    """

    def __init__(
        self,
        kube: KubeClient,
        store: Store,
        events: EventWriter,
        clock: ServerClock,
        *,
        settings: RenderSettings,
        admit: Admit = admit_immediately,
        took: Callable[[Object], None] = lambda _: None,
        silent_nodes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._kube, self._store, self._events = kube, store, events
        self._observer = Observer(store)
        self._clock, self._settings, self._admit, self._took = clock, settings, admit, took
        self._nodes, self._silent_nodes = NodeLabels(kube, monotonic), silent_nodes

    async def reconcile(self, key: Key) -> Result:
        """One round for one TrainingJob.

        Raises:
            ApiError: a request failed in a way that may pass; try again later.
        """
        observed = self._observer.observe(key, self._silent_nodes)
        if observed is None:
            return Result()
        planned, observed = await self._plan(key, observed)
        try:
            await self._create(planned.create)
        except (InvalidError, ForbiddenError, BadRequestError, NotFoundError, ForeignObjectError) as error:
            return await self._refused(observed, error)
        except ServerError as error:
            if _DEAD_WEBHOOK not in error.message:
                raise
            return await self._refused(observed, error)
        if planned.create:
            # The status follows in a round of its own: in a burst every job gets its children first, and the pod is
            # often there by then, which saves a write.
            return Result(again_after=0.0)
        changes = planned.suspend is not None or planned.patches or planned.delete
        if changes and not await self._is_current(observed):
            return Result(again_after=0.0)
        return await self._carry_out(key, observed, planned)

    async def _plan(self, key: Key, observed: Observed) -> tuple[Plan, Observed]:
        """The plan, after every look-up it takes."""
        planned = plan(observed, self._settings, self._clock.now(), self._admit)
        while planned.need is not None:
            answer = await self._look_up(key.namespace, planned.need)
            answers = {**observed.answers, planned.need: answer}
            fresh = self._observer.observe(key, self._silent_nodes) or observed
            observed = replace(fresh, answers=answers)
            planned = plan(observed, self._settings, self._clock.now(), self._admit)
        return planned, observed

    async def _look_up(self, namespace: str, need: Need) -> object:
        if need.kind == "log":
            return await self._log(namespace, need.name)
        if need.kind == "nodes":
            return await self._nodes.select(need.name)
        if need.kind == "terminating":
            return await self._is_terminating(need.name)
        try:
            found = await self._kube.get(path(_COLLECTIONS[need.kind], namespace, need.name))
        except NotFoundError:
            return None
        if need.kind != "claims":
            self._store.put(ResourceKind(need.kind), found)
        return found

    async def _is_terminating(self, namespace: str) -> bool:
        """Whether a namespace is being deleted; heard from what it would refuse, without a right to read namespaces."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _PROBE, "namespace": namespace}}
        try:
            await self._kube.create(path(CONFIG_MAPS, namespace), body, dry_run=True)
        except (ForbiddenError, ConflictError, InvalidError, BadRequestError) as error:
            return _TERMINATING in error.causes
        except NotFoundError:
            return True
        return False

    async def _log(self, namespace: str, pod: str) -> str | None:
        """The end of a pod's log; None where it cannot be had, which must not delay what the job became."""
        query = [("container", TRAINER_CONTAINER), ("tailLines", _LOG_LINES), ("limitBytes", _LOG_BYTES)]
        try:
            return await self._kube.text(path(PODS, namespace, pod, "log"), query)
        except ApiError as error:
            logger.info("the log of pod %s cannot be read: %s", pod, error)
            return None

    # --- children -----------------------------------------------------------------------------------------------------

    async def _create(self, bodies: tuple[Object, ...]) -> None:
        """What the Job's pod needs first, all at once, then the Job."""
        jobs = [body for body in bodies if body["kind"] == "Job"]
        await asyncio.gather(*(self._create_one(body) for body in bodies if body["kind"] != "Job"))
        for body in jobs:
            self._store.put(ResourceKind.JOBS, await self._create_one(body))

    async def _create_one(self, body: Object) -> Object:
        """Create a child, or adopt the one that an earlier round made.

        Raises:
            ForeignObjectError: an object of that name is not ours.
        """
        kind, namespace, name = body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]
        collection = _COLLECTIONS[kind]
        try:
            return await self._kube.create(path(collection, namespace), body)
        except ConflictError as conflict:
            if conflict.reason != "AlreadyExists":
                raise
        found = await self._kube.get(path(collection, namespace, name))
        if not _is_ours(found, body):
            raise ForeignObjectError(
                f"A {kind} {name} exists in namespace {namespace} and belongs to something else. Delete or rename it."
            )
        return found

    async def _is_current(self, observed: Observed) -> bool:
        """Whether the plan was made from the TrainingJob as it is now: a late watch must not start or end a run."""
        metadata = observed.job["metadata"]
        try:
            now = await self._kube.get(path(TRAINING_JOBS, metadata["namespace"], metadata["name"]))
        except NotFoundError:
            self._store.remove(ResourceKind.TRAINING_JOBS, observed.job)
            return False
        if now["metadata"]["uid"] != metadata["uid"]:
            self._store.remove(ResourceKind.TRAINING_JOBS, observed.job)
        self._store.put(ResourceKind.TRAINING_JOBS, now)
        same: bool = now["metadata"].get("generation") == metadata.get("generation")
        return same and "deletionTimestamp" not in now["metadata"]

    async def _change_children(self, observed: Observed, planned: Plan) -> None:
        if planned.suspend is not None and observed.child is not None:
            metadata = observed.child["metadata"]
            patch = {
                "metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]},
                "spec": {"suspend": planned.suspend},
            }
            url = path(JOBS, metadata["namespace"], metadata["name"])
            await self._patch_child(url, patch)
        namespace = observed.job["metadata"]["namespace"]
        for each in planned.patches:
            await self._patch(namespace, each)
        for deletion in planned.delete:
            await self._delete(namespace, deletion)

    async def _patch(self, namespace: str, patch: Patch) -> None:
        """Patch what Kueue reads; what it refuses stays as it is, and the next round sees that."""
        kind, _, part = patch.kind.partition("/")
        url = path(_COLLECTIONS[kind], namespace, patch.name, part)
        try:
            changed = await self._kube.merge(url, patch.body)
        except (InvalidError, ForbiddenError, BadRequestError, NotFoundError) as error:
            logger.warning("%s %s stays as it is: %s", patch.kind, patch.name, error)
            return
        if patch.kind == "workloads":
            self._took(changed)
        else:
            self._store.put(ResourceKind.JOBS, changed)

    async def _patch_child(self, url: str, patch: Object) -> None:
        try:
            self._store.put(ResourceKind.JOBS, await self._kube.merge(url, patch))
        except ConflictError:
            # The Job changed meanwhile: look at it as it is now before deciding again.
            self._store.put(ResourceKind.JOBS, await self._kube.get(url))
            raise

    async def _delete(self, namespace: str, deletion: Deletion) -> None:
        url = path(_COLLECTIONS[deletion.kind], namespace, deletion.name)
        try:
            await self._kube.delete(url, uid=deletion.uid, grace=deletion.grace)
        except NotFoundError:
            logger.debug("%s/%s is gone", namespace, deletion.name)
        except ConflictError:
            if await self._has_uid(url, deletion.uid):
                raise  # not for its UID: try again

    async def _has_uid(self, url: str, uid: str) -> bool:
        try:
            found = await self._kube.get(url)
        except NotFoundError:
            return False
        return bool(found["metadata"]["uid"] == uid)

    # --- status -------------------------------------------------------------------------------------------------------

    async def _refused(self, observed: Observed, error: Exception) -> Result:
        """Say in the status what the API server said; try again unless that cannot help."""
        refusal = _refusal(error)
        logger.warning("%s", refusal.message, extra={"reason": refusal.reason})
        told = replace(observed, refusal=refusal)
        planned = plan(told, self._settings, self._clock.now(), self._admit)
        await self._write_status(told, planned)
        return Result() if refusal.final else Result(failed=True)

    async def _carry_out(self, key: Key, observed: Observed, planned: Plan) -> Result:
        try:
            await self._change_children(observed, planned)
        except ServerError as error:
            if _DEAD_WEBHOOK not in error.message:
                raise
            return await self._held_up(observed, error)
        return await self._finish(key, observed, planned)

    async def _held_up(self, observed: Observed, error: ServerError) -> Result:
        """Say in the status what is to be done and why it is not done yet; a job at its end is decided anew at once."""
        text = f"The API server cannot change its Job now, and is asked again: {error.message}"
        logger.warning("%s", text)
        told = replace(observed, held_up=text)
        planned = plan(told, self._settings, self._clock.now(), self._admit)
        await self._write_status(told, planned)
        return Result(failed=planned.requeue_after != 0.0, again_after=planned.requeue_after)

    async def _finish(self, key: Key, observed: Observed, planned: Plan) -> Result:
        await self._write_status(observed, planned)
        self._forget_departed(key, observed)
        if planned.note is not None:
            logger.info("%s: %s", planned.note.reason, planned.note.message)
        return Result(again_after=planned.requeue_after)

    def _forget_departed(self, key: Key, observed: Observed) -> None:
        """Deleted pods are remembered until the status tells how they ended."""
        status = (self._store.job(key) or {}).get("status") or {}
        told = {entry["podUID"] for entry in status.get("attempts", []) if "finishedAt" in entry}
        gone = [
            pod for pod in observed.pods if pod.get("gone") and (pod["metadata"]["uid"] in told or is_past(pod, status))
        ]
        if not any(is_unfinished(entry) for entry in status.get("exports", [])):
            gone += [pod for pod in observed.export_pods if pod.get("gone")]
        self._store.forget_departed(observed.uid, gone)

    async def _write_status(self, observed: Observed, planned: Plan) -> None:
        if planned.status is None:
            return
        metadata = observed.job["metadata"]
        url = path(TRAINING_JOBS, metadata["namespace"], metadata["name"])
        version = {"resourceVersion": metadata["resourceVersion"]}
        try:
            written = await self._patch_status(url, version, planned.status)
        except ConflictError:
            self._store.put(ResourceKind.TRAINING_JOBS, await self._kube.get(url))
            raise
        except NotFoundError:
            # Deleted, and the watch is late: whoever still believed in it would try again at once.
            self._store.remove(ResourceKind.TRAINING_JOBS, observed.job)
            return
        self._store.put(ResourceKind.TRAINING_JOBS, written)
        if planned.note is not None:
            kind, reason, message = planned.note
            self._events.write(observed.job, kind=kind, reason=reason, note=message)

    async def _patch_status(self, url: str, version: Object, status: Object) -> Object:
        try:
            return await self._kube.merge(f"{url}/status", {"metadata": version, "status": status})
        except InvalidError as error:
            trusted = {key: value for key, value in status.items() if key not in FINAL_KEYS}
            if trusted == status:
                raise
            # A trainer's last words must not keep the job's end from being written.
            logger.warning("values of the termination message were left out: %s", error)
            return await self._kube.merge(f"{url}/status", {"metadata": version, "status": trusted})


def _is_ours(found: Object, body: Object) -> bool:
    """Whether an existing object is the one this job would have made; a retained claim is known by its label."""
    uid = body["metadata"]["labels"][JOB_UID_LABEL]
    if "ownerReferences" in body["metadata"]:
        return owned_by(found, uid)
    return bool((found["metadata"].get("labels") or {}).get(JOB_UID_LABEL) == uid)


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, ServerError):
        text = f"The API server cannot create the Job now, and is asked again: {error.message}"
        return Refusal("WebhookUnavailable", text, final=False, passing=True)
    if isinstance(error, ApiRefusedError):
        final = isinstance(error, InvalidError)
        short = isinstance(error, ForbiddenError) and "exceeded quota" in error.message
        reason = "InvalidSpec" if final else "QuotaExceeded" if short else "CreateForbidden"
        return Refusal(reason, f"The API server refused the Job: {error.message}", final)
    return Refusal("NameTaken", str(error), final=False)
