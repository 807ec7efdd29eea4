"""Which tokens permit reading."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.unit.serving.service_accounts import AUDIENCE, ISSUER, REMOVED, Signer
from trainyard_crds.serving import ReaderAccess
from trainyard_serving.artifacts.tokens import InvalidTokenError, RefusedTokenError, Tokens

FIRST, SECOND, UNKNOWN = Signer("one"), Signer("two", "ES256"), Signer("one")
"""UNKNOWN claims the identifier of FIRST."""
TOKENS = Tokens(
    ReaderAccess(
        keys={"keys": [FIRST.jwk(), SECOND.jwk()]},
        issuer=ISSUER,
        namespace="team",
        others=["trainyard-system/trainyard-gateway"],
    )
)


def now() -> int:
    return int(time.time())


@pytest.mark.parametrize(
    "token",
    [
        FIRST.token(),
        FIRST.token(account="trainer"),
        SECOND.token(),
        FIRST.token(aud=["other", AUDIENCE]),
        FIRST.token(aud=AUDIENCE),
        FIRST.token(nbf=now() + 30),  # the clock of this node is late
        FIRST.token("trainyard-system", "trainyard-gateway"),
    ],
)
def test_token_permits_reading(token: str) -> None:
    TOKENS.check(token)


def test_token_that_has_just_expired_permits_reading() -> None:
    """The clock of this node may be early."""
    TOKENS.check(FIRST.token(exp=now() - 5))


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "The token is not valid"),
        ("a.b.c", "The token is not valid"),
        (UNKNOWN.token(), "The token is not valid: Signature verification failed"),
        (Signer("three").token(), "The token is not signed by this cluster"),
        (FIRST.token(aud=["https://kubernetes.default.svc"]), "Audience doesn't match"),
        (FIRST.token(aud="trainyard.dev/artifacts/other"), "Audience doesn't match"),
        (FIRST.token(aud=REMOVED), 'missing the "aud" claim'),
        (FIRST.token(iss="https://other"), "Invalid issuer"),
        (FIRST.token(iss=REMOVED), 'missing the "iss" claim'),
        (FIRST.token(exp=now() - 3600), "Signature has expired"),
        (FIRST.token(exp=REMOVED), 'missing the "exp" claim'),
        (FIRST.token(nbf=now() + 3600), "not yet valid"),
    ],
)
def test_token_is_not_valid(token: str, message: str) -> None:
    with pytest.raises(InvalidTokenError, match=message):
        TOKENS.check(token)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (FIRST.token("other"), "A token of namespace other does not permit reading in team"),
        (FIRST.token("trainyard-system", "default"), "A token of namespace trainyard-system does not permit"),
        (FIRST.token("other", "trainyard-gateway"), "A token of namespace other does not permit"),
        (FIRST.token(bound=REMOVED), "of no service account"),
        (FIRST.token(bound="team"), "of no service account"),
        (FIRST.token(bound={"namespace": None}), "of no service account"),
        (FIRST.token(bound={"namespace": "trainyard-system", "serviceaccount": 1}), "does not permit"),
    ],
)
def test_token_of_another_account_is_refused(token: str, message: str) -> None:
    with pytest.raises(RefusedTokenError, match=message) as refused:
        TOKENS.check(token)
    assert not isinstance(refused.value, InvalidTokenError)


def unsigned(algorithm: str, signature: bytes = b"") -> str:
    """Return a token whose header names an algorithm, with any signature."""
    payload = FIRST.token().split(".")[1]
    return f"{part({'alg': algorithm, 'kid': 'one'})}.{payload}.{encoded(signature)}"


def part(document: dict[str, Any]) -> str:
    return encoded(json.dumps(document).encode())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_public_key_is_no_shared_secret() -> None:
    public = FIRST.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = unsigned("HS256").rpartition(".")[0]
    forged = f"{signed}.{encoded(hmac.new(public, signed.encode(), hashlib.sha256).digest())}"
    with pytest.raises(InvalidTokenError):
        TOKENS.check(forged)


@pytest.mark.parametrize("algorithm", ["none", "None", "RS256", "ES256"])
def test_token_without_a_signature_is_refused(algorithm: str) -> None:
    with pytest.raises(InvalidTokenError):
        TOKENS.check(unsigned(algorithm))
