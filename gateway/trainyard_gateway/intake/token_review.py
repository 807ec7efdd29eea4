"""Authenticates pods by TokenReview, with a short cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trainyard_gateway.intake.errors import ReportRejectedError
from trainyard_kube.errors import ApiError

_SERVICE_ACCOUNT = "system:serviceaccount:"
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
_CACHE_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The pod that a token is bound to."""

    namespace: str
    name: str
    uid: str


class TokenReviewApi(Protocol):
    """The API request that reviews tokens."""

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        """Return the status of a TokenReview."""


class TokenReviewer:
    """Reviews tokens and caches the valid ones.

    Args:
        api: Sends TokenReviews.
        clock: Monotonic seconds.
        lifetime: Seconds a valid result is cached; a deleted pod's token may be accepted that much longer.
    """

    def __init__(self, api: TokenReviewApi, clock: Callable[[], float], lifetime: float = 60.0) -> None:
        self._api, self._clock, self._lifetime = api, clock, lifetime
        self._cache: dict[bytes, tuple[float, PodIdentity]] = {}

    async def review(self, token: str, audience: str) -> PodIdentity:
        """Return the pod that holds a token for an audience.

        Raises:
            ReportRejectedError: 401, the token is not valid for this audience; 503, it cannot be reviewed now.
        """
        # The cache holds hashes, so that no token stays in memory longer than its request.
        key = hashlib.sha256(f"{audience}\0{token}".encode()).digest()
        cached = self._cache.get(key)
        if cached is not None and self._clock() < cached[0]:
            return cached[1]
        try:
            status = await self._api.review_token(token, audience)
        except ApiError as error:
            message = f"the token cannot be reviewed now: {error}"
            raise ReportRejectedError(503, "ApiUnavailable", message, retry_after=5) from error
        pod = parse_review(status, audience)
        self._store(key, pod)
        return pod

    def _store(self, key: bytes, pod: PodIdentity) -> None:
        now = self._clock()
        if len(self._cache) >= _CACHE_LIMIT:
            self._cache = {cached: entry for cached, entry in self._cache.items() if entry[0] > now}
        if len(self._cache) < _CACHE_LIMIT:
            self._cache[key] = (now + self._lifetime, pod)


def parse_review(status: Mapping[str, Any], audience: str) -> PodIdentity:
    """Parse the status of a TokenReview.

    Raises:
        ReportRejectedError: 401, the token is invalid, has another audience, or is not bound to a pod.
    """
    if status.get("authenticated") is not True or audience not in status.get("audiences", []):
        raise unauthorized()
    user = status.get("user", {})
    account, extra = user.get("username", ""), user.get("extra", {})
    pods, uids = extra.get(_POD_NAME, []), extra.get(_POD_UID, [])
    if not account.startswith(_SERVICE_ACCOUNT) or len(pods) != 1 or len(uids) != 1:
        message = "the token is not bound to a pod; use the token file mounted into the trainer pod"
        raise ReportRejectedError(401, "NotAPodToken", message)
    return PodIdentity(account.removeprefix(_SERVICE_ACCOUNT).partition(":")[0], pods[0], uids[0])


def unauthorized() -> ReportRejectedError:
    """Return the rejection of an invalid token; it is the same for jobs that do not exist, so it reveals none."""
    return ReportRejectedError(
        401,
        "Unauthorized",
        "the token is not valid for this TrainingJob; use the token file mounted into the job's own pod, "
        "and read it again for every report, because it is renewed",
    )
