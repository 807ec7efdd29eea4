"""Lists and reads ModelDeployments for a user."""

from __future__ import annotations

from trainyard_crds.constants import MODEL_DEPLOYMENTS
from trainyard_gateway.services.objects import Collection, Page, UserObjects
from trainyard_kube.paths import Object

_DEPLOYMENTS = Collection("ModelDeployment", MODEL_DEPLOYMENTS)


class ModelDeploymentService:
    """ModelDeployments as the caller may see them.

    Args:
        objects: Reads objects with the caller's token.
    """

    def __init__(self, objects: UserObjects) -> None:
        self._objects = objects

    async def list_page(self, token: str, namespace: str, *, ready: bool | None, limit: int, offset: int) -> Page:
        """Return a page of the ModelDeployments of a namespace, newest first.

        Args:
            token: The caller's token.
            namespace: The namespace.
            ready: Select those whose condition Ready is true, or is not; None for all.
            limit: Maximum number of objects.
            offset: Number of newer objects to skip.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """

        def matches(item: Object) -> bool:
            return ready is None or _is_ready(item) == ready

        return await self._objects.list_page(
            token, _DEPLOYMENTS, namespace, matches=matches, limit=limit, offset=offset
        )

    async def get(self, token: str, namespace: str, name: str) -> Object:
        """Return one ModelDeployment.

        Args:
            token: The caller's token.
            namespace: The namespace.
            name: Its name; `_` stands for `-`.

        Raises:
            ApiError: the API server refused the request or did not answer.
        """
        return await self._objects.get(token, _DEPLOYMENTS, namespace, name)


def _is_ready(document: Object) -> bool:
    conditions = document.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
