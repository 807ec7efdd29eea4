"""Whose token it is: TokenReview with a short memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trainyard_gateway.errors import Refusal
from trainyard_kube.errors import ApiError

_SERVICE_ACCOUNT = "system:serviceaccount:"
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """The pod a token was made for."""

    namespace: str
    pod: str
    pod_uid: str


class Reviewer(Protocol):
    """The part of the API that reviews tokens."""

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        """The status of a TokenReview."""


class Tokens:
    """Reviews tokens and remembers the good ones.

    Args:
        reviewer: Who knows whether a token is good.
        clock: Monotonic seconds.
        lifetime: Seconds a good answer is reused; a deleted pod's token may be taken that much longer.
    """

    def __init__(self, reviewer: Reviewer, clock: Callable[[], float], lifetime: float = 60.0) -> None:
        self._reviewer, self._clock, self._lifetime = reviewer, clock, lifetime
        self._known: dict[bytes, tuple[float, Caller]] = {}

    async def caller(self, token: str, audience: str) -> Caller:
        """The pod that holds a token for an audience.

        Raises:
            Refusal: 401 when the token is not good for this audience, 503 when that cannot be found out now.
        """
        # The hash, so that no token lies in memory longer than its request.
        key = hashlib.sha256(f"{audience}\0{token}".encode()).digest()
        known = self._known.get(key)
        if known is not None and self._clock() < known[0]:
            return known[1]
        try:
            status = await self._reviewer.review_token(token, audience)
        except ApiError as error:
            raise Refusal(503, "ApiUnavailable", f"the token cannot be reviewed now: {error}", retry_after=5) from error
        caller = caller_of(status, audience)
        self._remember(key, caller)
        return caller

    def _remember(self, key: bytes, caller: Caller) -> None:
        now = self._clock()
        if len(self._known) >= _REMEMBERED:
            self._known = {known: entry for known, entry in self._known.items() if entry[0] > now}
        if len(self._known) < _REMEMBERED:
            self._known[key] = (now + self._lifetime, caller)


def caller_of(status: Mapping[str, Any], audience: str) -> Caller:
    """Read the status of a TokenReview.

    Raises:
        Refusal: 401, the token is not good, has another audience, or belongs to no pod.
    """
    if status.get("authenticated") is not True or audience not in status.get("audiences", []):
        raise unauthorized()
    user = status.get("user", {})
    account, extra = user.get("username", ""), user.get("extra", {})
    pods, uids = extra.get(_POD_NAME, []), extra.get(_POD_UID, [])
    if not account.startswith(_SERVICE_ACCOUNT) or len(pods) != 1 or len(uids) != 1:
        raise Refusal(
            401, "NotAPodToken", "the token is not bound to a pod; use the token file mounted into the training pod"
        )
    return Caller(account.removeprefix(_SERVICE_ACCOUNT).partition(":")[0], pods[0], uids[0])


def unauthorized() -> Refusal:
    """The one answer to a token that is not good; it tells a stranger nothing about which jobs exist."""
    return Refusal(
        401,
        "Unauthorized",
        "the token is not valid for this TrainingJob; use the token file mounted into the job's own pod, "
        "and read it again for every report, because it is renewed",
    )
