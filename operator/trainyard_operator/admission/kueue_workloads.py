"""Follows Kueue's Workloads and asks for places in its queues.

A list, then a watch, and both again: kopf's watches never notice a kind that is installed later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ApiError, ForbiddenError, NotFoundError, ServerError
from trainyard_kube.paths import Object, path
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION, WORKLOAD_JOB_LABEL, is_finished

logger = logging.getLogger(__name__)

WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/{namespace}workloads"
_WATCH_SECONDS = 300
_ABSENT_RETRY, _RETRY, _PAUSE = 15.0, 5.0, 1.0
_VISIBILITY = "/apis/visibility.kueue.x-k8s.io/{version}/namespaces/{namespace}/localqueues/{queue}/pendingworkloads"
_VERSIONS = ("v1beta2", "v1beta1")
_ABSENT = (
    "Kueue is not there: the API server does not serve kueue.x-k8s.io/v1beta2. The administrator installs Kueue 0.16 "
    "or newer, or sets the chart value queue.mode to Builtin; the job waits and needs no change."
)
_FORBIDDEN = (
    "The operator may not watch Kueue's Workloads. The administrator upgrades the chart with queue.mode=Kueue, which "
    "brings the permission. The API server says: {0}"
)


class WorkloadFeed:
    """The Workloads of batch Jobs that are not finished, by the UID of their Job.

    Args:
        kube: The API server.
        changed: Called with a Job's UID when its Workload has news.
        turned: Called when Kueue came or went.

    Attributes:
        problem: Why there are no Workloads, a sentence; None while they are followed.
        listed: Whether it is known yet if there is a problem.
    """

    def __init__(self, kube: KubeClient, *, changed: Callable[[str], None], turned: Callable[[], None]) -> None:
        self._kube, self._changed, self._turned = kube, changed, turned
        self._workloads: dict[str, Object] = {}
        self.problem: str | None = None
        self.listed = False

    def of(self, job_uid: str) -> Object | None:
        """The Workload of a Job, trimmed."""
        return self._workloads.get(job_uid)

    def put(self, obj: Object) -> None:
        """Take in a Workload as it is after an event or a change of ours."""
        workload = _trimmed(obj)
        uid = _job_uid(workload)
        known = self._workloads.get(uid)
        if not uid or (known is not None and _version(known) >= _version(workload)):
            return
        if is_finished(workload):
            self._workloads.pop(uid, None)
        else:
            self._workloads[uid] = workload
        self._changed(uid)

    async def run(self) -> None:
        """Follow for ever, also where there is nothing to follow yet."""
        while True:
            pause = await self._once()
            await asyncio.sleep(pause)

    async def _once(self) -> float:
        """List, then watch until the watch ends; the seconds to pause then."""
        try:
            version = await self._list()
            self._turn(None)
            await self._follow(version)
        except NotFoundError:
            self._workloads.clear()
            self._turn(_ABSENT)
            return _ABSENT_RETRY
        except ForbiddenError as error:
            self._workloads.clear()
            self._turn(_FORBIDDEN.format(error.message))
            return _ABSENT_RETRY
        except ApiError as error:
            logger.warning("Workloads cannot be followed, next try in %.0f s: %s", _RETRY, error)
            return _RETRY
        return _PAUSE

    def _turn(self, problem: str | None) -> None:
        if self.listed and problem == self.problem:
            return
        if problem is not None:
            logger.warning("%s", problem)
        else:
            logger.info("Kueue is there, %d unfinished Workloads of Jobs", len(self._workloads))
        self.listed, self.problem = True, problem
        self._turned()

    async def _list(self) -> str:
        found, version = await self._kube.list_all(path(WORKLOADS), [("labelSelector", WORKLOAD_JOB_LABEL)], _trimmed)
        fresh = {_job_uid(item): item for item in found if not is_finished(item)}
        gone = self._workloads.keys() - fresh.keys()
        for uid in gone:
            del self._workloads[uid]
        for uid in gone:
            self._changed(uid)
        for item in fresh.values():
            self.put(item)
        return version

    async def _follow(self, version: str) -> None:
        query = [("labelSelector", WORKLOAD_JOB_LABEL)]
        async with aclosing(self._kube.watch(path(WORKLOADS), query, version, _WATCH_SECONDS)) as events:
            async for event in events:
                if event["type"] == "ERROR":
                    return  # the version is too old, or the kind is gone: the next list tells
                if event["type"] == "DELETED":
                    uid = _job_uid(event["object"])
                    if self._workloads.pop(uid, None) is not None:
                        self._changed(uid)
                elif event["type"] != "BOOKMARK":
                    self.put(event["object"])


class Visibility:
    """Kueue's visibility API: what waits in a LocalQueue, in order.

    Args:
        kube: The API server.
    """

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._told = False

    async def pending(self, namespace: str, queue: str) -> list[Object] | None:
        """What waits in a LocalQueue; None where that cannot be known, which is logged once."""
        problem: ApiError | None = None
        for version in _VERSIONS:
            url = _VISIBILITY.format(version=version, namespace=namespace, queue=queue)
            try:
                answer = await self._kube.get(url)
            except (NotFoundError, ForbiddenError, ServerError) as error:
                problem = problem or error
                continue
            except ApiError as error:
                problem = error
                break
            items: list[Object] = answer.get("items") or []
            return items
        if not self._told:
            self._told = True
            logger.warning("places in Kueue's queues are unknown, its visibility API does not answer: %s", problem)
        return None


def _trimmed(obj: Object) -> Object:
    """What decisions need of a Workload: its pod sets, the most of it, are not kept."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    annotations = metadata.get("annotations") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "labels")
    return {
        "metadata": {
            **{key: metadata[key] for key in kept if key in metadata},
            "annotations": {key: annotations[key] for key in (HELD_ANNOTATION,) if key in annotations},
        },
        "spec": {key: spec[key] for key in ("active", "queueName") if key in spec},
        "status": {key: status[key] for key in ("conditions", "requeueState", "admissionChecks") if key in status},
    }


def _job_uid(workload: Object) -> str:
    return str((workload["metadata"].get("labels") or {}).get(WORKLOAD_JOB_LABEL, ""))


def _version(workload: Object) -> int:
    return int(workload["metadata"]["resourceVersion"])
