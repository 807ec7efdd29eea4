from __future__ import annotations

from typing import Any

import pytest

from tests.unit.gateway.fakes import UID, Clock, FakeTokenReviewApi, pod_identity, review
from trainyard_crds.constants import progress_audience
from trainyard_gateway.intake.errors import ReportRejectedError
from trainyard_gateway.intake.token_review import TokenReviewer, parse_review

AUDIENCE = progress_audience(UID)
USER = review()["user"]


def test_review_identifies_the_pod() -> None:
    assert parse_review(review(), AUDIENCE) == pod_identity()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, "Unauthorized"),
        ({"user": {}, "error": "invalid bearer token"}, "Unauthorized"),
        (review(authenticated=False), "Unauthorized"),
        (review(authenticated="true"), "Unauthorized"),
        (review(audiences=["https://kubernetes.default.svc"]), "Unauthorized"),
        (review(audiences=[]), "Unauthorized"),
        (review(user=USER | {"extra": {}}), "NotAPodToken"),
        (review(user=USER | {"username": "admin"}), "NotAPodToken"),
        (review(user={"username": "system:serviceaccount:team:default"}), "NotAPodToken"),
    ],
)
def test_other_reviews_are_rejected(status: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReportRejectedError) as caught:
        parse_review(status, AUDIENCE)
    assert (caught.value.code, caught.value.reason) == (401, reason)


async def test_valid_token_is_cached_for_a_minute_by_token_and_audience() -> None:
    clock, api = Clock(), FakeTokenReviewApi(review(audiences=[AUDIENCE, "b"]))
    tokens = TokenReviewer(api, clock)
    for token, audience, passed, calls in (
        ("t", AUDIENCE, 0, 1), ("t", AUDIENCE, 59, 1), ("t", "b", 0, 2), ("u", AUDIENCE, 0, 3), ("t", AUDIENCE, 1, 4),
    ):  # fmt: skip
        clock.now += passed
        assert await tokens.review(token, audience) == pod_identity()
        assert api.calls == calls


async def test_invalid_token_is_not_cached() -> None:
    api = FakeTokenReviewApi({"error": "bad"})
    tokens = TokenReviewer(api, Clock())
    for _ in range(2):
        with pytest.raises(ReportRejectedError):
            await tokens.review("t", AUDIENCE)
    assert api.calls == 2


async def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard_gateway.intake.token_review._CACHE_LIMIT", 2)
    clock, api = Clock(), FakeTokenReviewApi(review())
    tokens = TokenReviewer(api, clock)
    for token in "abca":
        await tokens.review(token, AUDIENCE)
    assert api.calls == 3
    clock.now += 61
    for token in "cc":
        await tokens.review(token, AUDIENCE)
    assert api.calls == 4
