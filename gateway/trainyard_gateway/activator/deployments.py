"""ModelDeployments and their ready replicas, kept current by informers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard_crds.common import GROUP, VERSION
from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL
from trainyard_crds.modeldeployment_serving import ScaleToZero
from trainyard_crds.serving import DEPLOYMENT_UID_LABEL, SERVE_ROLE
from trainyard_gateway.activator.targets import Target
from trainyard_kube.cache import Cache
from trainyard_kube.paths import PODS
from trainyard_kube.resource import ResourceSpec

COLLECTION = f"/apis/{GROUP}/{VERSION}/{{namespace}}modeldeployments"


@dataclass(frozen=True)
class Deployment:
    """What the activator knows of a ModelDeployment.

    Attributes:
        target: Its name.
        uid: Its UID.
        replicas: spec.replicas.
        stopped: spec.stopped.
        scaling: spec.scaleToZero; None without it.
    """

    target: Target
    uid: str
    replicas: int
    stopped: bool
    scaling: ScaleToZero | None

    @classmethod
    def from_object(cls, document: dict[str, Any]) -> Deployment:
        """Parse an object of the API."""
        metadata, spec = document["metadata"], document.get("spec") or {}
        scaling = spec.get("scaleToZero")
        return cls(
            target=Target(metadata["namespace"], metadata["name"]),
            uid=metadata["uid"],
            replicas=int(spec.get("replicas", 1)),
            stopped=bool(spec.get("stopped")),
            scaling=None if scaling is None else ScaleToZero.model_validate(scaling),
        )


@dataclass(frozen=True)
class Replica:
    """A ready replica.

    Attributes:
        deployment: UID of its ModelDeployment.
        address: Its address.
        ready_since: When it became ready.
    """

    deployment: str
    address: str
    ready_since: datetime


def replica_of(pod: dict[str, Any]) -> Replica | None:
    """Parse a pod; None unless it is ready and not being deleted."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    ready = next((entry for entry in status.get("conditions") or [] if entry["type"] == "Ready"), None)
    if "deletionTimestamp" in metadata or not status.get("podIP") or ready is None or ready["status"] != "True":
        return None
    uid = (metadata.get("labels") or {}).get(DEPLOYMENT_UID_LABEL, "")
    return Replica(uid, status["podIP"], datetime.fromisoformat(ready["lastTransitionTime"]))


class Deployments:
    """ModelDeployments by name, with their ready replicas.

    Attributes:
        deployments, replicas: The caches that informers keep current.
    """

    def __init__(self) -> None:
        self._by_target: dict[Target, Deployment] = {}
        self._changed = asyncio.Event()
        self.deployments: Cache[Deployment] = Cache(Deployment.from_object, self._on_deployment)
        self.replicas: Cache[Replica] = Cache(replica_of, self._on_replica)

    def get(self, target: Target) -> Deployment | None:
        """Return the ModelDeployment of a name."""
        return self._by_target.get(target)

    def scaled(self) -> list[Deployment]:
        """Return those that are scaled to zero while nothing is asked."""
        return [found for found in self._by_target.values() if found.scaling is not None]

    def ready(self, deployment: Deployment) -> list[Replica]:
        """Return the ready replicas of a ModelDeployment."""
        return [replica for replica in self.replicas.values() if replica.deployment == deployment.uid]

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on these caches holds."""
        while not condition():
            changed = self._changed
            await changed.wait()

    def _on_deployment(self, uid: str, before: Deployment | None, after: Deployment | None) -> None:
        found = after or before
        assert found is not None
        if after is not None:
            self._by_target[after.target] = after
        elif (known := self._by_target.get(found.target)) is not None and known.uid == uid:
            del self._by_target[found.target]
        self._wake()

    def _on_replica(self, _uid: str, _before: Replica | None, _after: Replica | None) -> None:
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


DEPLOYMENTS = ResourceSpec[Deployment](kind="modeldeployments", collection=COLLECTION, trim=Deployment.from_object)
REPLICAS = ResourceSpec[Replica](
    kind="pods",
    collection=PODS,
    labels={MANAGED_BY_LABEL: MANAGED_BY, ROLE_LABEL: SERVE_ROLE},
    trim=replica_of,
)
