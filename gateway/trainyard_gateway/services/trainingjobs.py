"""Lists and reads TrainingJobs for a user."""

from __future__ import annotations

from collections.abc import Collection as Several

from trainyard_crds.constants import TRAINING_JOBS
from trainyard_crds.trainingjob_status import Phase
from trainyard_gateway.services.objects import Collection, Page, UserObjects
from trainyard_kube.paths import Object

_JOBS = Collection("TrainingJob", TRAINING_JOBS)


class TrainingJobService:
    """TrainingJobs as the caller may see them.

    Args:
        objects: Reads objects with the caller's token.
    """

    def __init__(self, objects: UserObjects) -> None:
        self._objects = objects

    async def list_page(self, token: str, namespace: str, *, phases: Several[Phase], limit: int, offset: int) -> Page:
        """Return a page of the TrainingJobs of a namespace, newest first.

        Args:
            token: The caller's token.
            namespace: The namespace.
            phases: Phases to select; empty for all.
            limit: Maximum number of objects.
            offset: Number of newer objects to skip.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """

        def matches(item: Object) -> bool:
            return not phases or _phase(item) in phases

        return await self._objects.list_page(token, _JOBS, namespace, matches=matches, limit=limit, offset=offset)

    async def get(self, token: str, namespace: str, name: str) -> Object:
        """Return one TrainingJob.

        Args:
            token: The caller's token.
            namespace: The namespace.
            name: Its name; `_` stands for `-`.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """
        return await self._objects.get(token, _JOBS, namespace, name)


def _phase(document: Object) -> str:
    return str(document.get("status", {}).get("phase", ""))
