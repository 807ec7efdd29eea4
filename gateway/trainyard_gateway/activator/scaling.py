"""Writes `/scale` of ModelDeployments: up for a first request, down when nothing is asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from trainyard_crds.serving import ReplicaState
from trainyard_gateway.activator.deployments import COLLECTION, Deployment, Deployments
from trainyard_gateway.activator.idle import is_idle
from trainyard_gateway.activator.targets import Target
from trainyard_gateway.activator.waiting import Waiting
from trainyard_kube.client import KubeClient
from trainyard_kube.errors import ApiError
from trainyard_kube.paths import path

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 15.0
_RETRY_SECONDS = 2.0


class Scaler:
    """Scales ModelDeployments between zero and one replica.

    Args:
        kube: The API server, as the gateway's service account.
        deployments: The ModelDeployments.
        waiting: The waiting requests.
        ask: Asks the replica at an address for its state.
        now: The time.
    """

    def __init__(
        self,
        kube: KubeClient,
        deployments: Deployments,
        waiting: Waiting,
        ask: Callable[[str], Awaitable[ReplicaState | None]],
        now: Callable[[], datetime],
    ) -> None:
        self._kube, self._deployments, self._waiting = kube, deployments, waiting
        self._ask, self._now, self._started = ask, now, now()
        self._waking: dict[Target, asyncio.Task[None]] = {}

    def wake(self, deployment: Deployment) -> None:
        """Start a replica; once, however many requests ask for it."""
        task = self._waking.get(deployment.target)
        if task is None or task.done():
            self._waking[deployment.target] = asyncio.create_task(self._wake(deployment.target))

    async def run(self) -> None:
        """Scale idle ModelDeployments to zero, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            for deployment in self._deployments.scaled():
                try:
                    await self._check(deployment)
                except ApiError as error:
                    logger.warning("ModelDeployment %s could not be checked: %s", deployment.target, error)

    async def _wake(self, target: Target) -> None:
        """Scale up as long as requests wait and there is no replica wanted."""
        while self._waiting.count(target):
            deployment = self._deployments.get(target)
            if deployment is None or deployment.stopped or deployment.scaling is None or deployment.replicas:
                return
            try:
                await self._scale(target, 1)
            except ApiError as error:
                logger.warning("ModelDeployment %s could not be scaled up, which is tried again: %s", target, error)
            await asyncio.sleep(_RETRY_SECONDS)  # the informer brings the change meanwhile

    async def _check(self, deployment: Deployment) -> None:
        replicas = self._deployments.ready(deployment)
        if deployment.scaling is None or not deployment.replicas or not replicas:
            return
        if deployment.stopped or self._waiting.count(deployment.target):
            return
        states = [await self._ask(replica.address) for replica in replicas]
        since = [replica.ready_since for replica in replicas]
        if is_idle(states, since, self._started, self._now(), deployment.scaling.idle_seconds):
            logger.info("ModelDeployment %s is idle and is scaled to zero", deployment.target)
            await self._scale(deployment.target, 0)

    async def _scale(self, target: Target, replicas: int) -> None:
        url = path(COLLECTION, target.namespace, target.name, "scale")
        await self._kube.merge(url, {"spec": {"replicas": replicas}})
