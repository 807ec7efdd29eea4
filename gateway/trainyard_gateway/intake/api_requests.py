"""Requests of the intake to the API server, except those of the informer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard_crds.constants import TRAINING_JOBS
from trainyard_gateway.intake.job_cache import JobKey
from trainyard_kube.client import KubeClient
from trainyard_kube.paths import TOKEN_REVIEWS, Object, path
from trainyard_kube.rate_limit import Limits

FIELD_MANAGER = "trainyard-gateway"
LIMITS = Limits(rate=1000.0, burst=2000.0, in_flight=64)
"""Wide, because every new token requires a TokenReview; the write scheduler limits status writes."""


class ApiServer:
    """TokenReviews and status patches.

    Args:
        kube: The API server.
    """

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def review_token(self, token: str, audience: str) -> Object:
        """Return the status of a TokenReview.

        Raises:
            ApiError: the request failed.
        """
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        review = await self._kube.create(TOKEN_REVIEWS, body)
        status: Object = review.get("status", {})
        return status

    async def patch_status(self, key: JobKey, patch: Mapping[str, Any]) -> Object:
        """Merge-patch the status of a TrainingJob and return the new object.

        Raises:
            ApiError: the request failed; ConflictError if the resourceVersion is stale.
        """
        return await self._kube.merge(path(TRAINING_JOBS, key.namespace, key.name, "status"), dict(patch))
