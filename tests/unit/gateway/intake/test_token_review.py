from __future__ import annotations

from typing import Any

import pytest

from tests.unit.gateway.fakes import UID, Clock, FakeReviewer, caller, review
from trainyard_crds.constants import progress_audience
from trainyard_gateway.errors import Refusal
from trainyard_gateway.intake.token_review import Tokens, caller_of

AUDIENCE = progress_audience(UID)
USER = review()["user"]


def test_a_review_names_the_pod() -> None:
    assert caller_of(review(), AUDIENCE) == caller()


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
def test_any_other_review_is_a_refusal(status: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        caller_of(status, AUDIENCE)
    assert (caught.value.code, caught.value.reason) == (401, reason)


async def test_a_good_token_is_remembered_for_a_minute_by_token_and_audience() -> None:
    clock, reviewer = Clock(), FakeReviewer(review(audiences=[AUDIENCE, "b"]))
    tokens = Tokens(reviewer, clock)
    for token, audience, passed, calls in (
        ("t", AUDIENCE, 0, 1), ("t", AUDIENCE, 59, 1), ("t", "b", 0, 2), ("u", AUDIENCE, 0, 3), ("t", AUDIENCE, 1, 4),
    ):  # fmt: skip
        clock.now += passed
        assert await tokens.caller(token, audience) == caller()
        assert reviewer.calls == calls


async def test_a_bad_token_is_asked_about_every_time() -> None:
    reviewer = FakeReviewer({"error": "bad"})
    tokens = Tokens(reviewer, Clock())
    for _ in range(2):
        with pytest.raises(Refusal):
            await tokens.caller("t", AUDIENCE)
    assert reviewer.calls == 2


async def test_the_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard_gateway.intake.token_review._REMEMBERED", 2)
    clock, reviewer = Clock(), FakeReviewer(review())
    tokens = Tokens(reviewer, clock)
    for token in "abca":
        await tokens.caller(token, AUDIENCE)
    assert reviewer.calls == 3
    clock.now += 61
    for token in "cc":
        await tokens.caller(token, AUDIENCE)
    assert reviewer.calls == 4
