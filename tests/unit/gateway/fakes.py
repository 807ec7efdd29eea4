"""TrainingJob objects and fake API clients for the gateway's unit tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard_crds.constants import child_name, progress_audience
from trainyard_gateway.intake.job_cache import Job, JobKey
from trainyard_gateway.intake.token_review import PodIdentity
from trainyard_kube.errors import ApiError

UID = "aaaaaaaa-0000-0000-0000-000000000000"
KEY = JobKey("team", "tune")
POD_UID = "pod-1"


class Clock:
    """Monotonic clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def attempt(number: int = 1, pod_uid: str = POD_UID, *, ended: bool = False) -> dict[str, Any]:
    entry = {"number": number, "pod": f"p{number}", "podUID": pod_uid}
    return entry | {"finishedAt": "2026-01-01T00:00:00Z"} if ended else entry


def job_object(*, uid: str = UID, version: int = 7, key: JobKey = KEY, **status: Any) -> dict[str, Any]:
    metadata = {"namespace": key.namespace, "name": key.name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"attempts": [attempt()]} | status}


def job(**fields: Any) -> Job:
    return Job.from_object(job_object(**fields))


def pod_identity(**changes: str) -> PodIdentity:
    fields = {"namespace": KEY.namespace, "name": f"{child_name(KEY.name, UID)}-x2k4p", "uid": POD_UID}
    return PodIdentity(**(fields | changes))


def review(**changes: Any) -> dict[str, Any]:
    """Status of a TokenReview that authenticates the pod above."""
    extra = {
        "authentication.kubernetes.io/pod-name": [pod_identity().name],
        "authentication.kubernetes.io/pod-uid": [POD_UID],
    }
    user = {"username": f"system:serviceaccount:{KEY.namespace}:default", "extra": extra}
    return {"authenticated": True, "user": user, "audiences": [progress_audience(UID)]} | changes


class FakeApi:
    """Returns the given responses in order; an error is raised.

    Attributes:
        responses: One per patch.
        patches: The received patches.
    """

    def __init__(self, *responses: dict[str, Any] | ApiError) -> None:
        self.responses = list(responses)
        self.patches: list[Mapping[str, Any]] = []

    async def patch_status(self, key: JobKey, patch: Mapping[str, Any]) -> dict[str, Any]:
        self.patches.append(patch)
        response = self.responses.pop(0)
        if isinstance(response, ApiError):
            raise response
        return response


class FakeTokenReviewApi:
    """Returns one response to every review and counts the reviews."""

    def __init__(self, response: dict[str, Any] | ApiError) -> None:
        self.response, self.calls = response, 0

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        self.calls += 1
        if isinstance(self.response, ApiError):
            raise self.response
        return self.response
