"""Verifies service account tokens offline, with the public keys of the API server."""

from __future__ import annotations

from typing import Any

import jwt

from trainyard_crds.serving import READER_AUDIENCE, ReaderAccess

_ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
"""Asymmetric ones only: with a symmetric one, the public key would be a password that everybody knows."""
_LEEWAY = 60
"""Seconds by which the clocks of nodes may differ."""
_KUBERNETES = "kubernetes.io"


class RefusedTokenError(Exception):
    """A token does not permit reading; the text is a sentence without the token."""


class InvalidTokenError(RefusedTokenError):
    """It is no token of this cluster for artifact readers, or it has expired; another one may do."""


class Tokens:
    """Verifies tokens.

    Args:
        access: Which tokens are accepted.
    """

    def __init__(self, access: ReaderAccess) -> None:
        usable = (key for key in jwt.PyJWKSet.from_dict(access.keys).keys if key.algorithm_name in _ALGORITHMS)
        self._keys = {key.key_id: key for key in usable}
        self._access = access

    def check(self, token: str) -> None:
        """Check one token.

        Raises:
            InvalidTokenError: it is not valid here.
            RefusedTokenError: it is of another namespace.
        """
        bound = self._claims(token).get(_KUBERNETES)
        namespace, account = _account(bound) if isinstance(bound, dict) else (None, None)
        if namespace is None:
            raise RefusedTokenError("The token is of no service account.")
        own = self._access.namespace
        if namespace != own and f"{namespace}/{account}" not in self._access.others:
            raise RefusedTokenError(f"A token of namespace {namespace} does not permit reading in {own}.")

    def _claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token whose signature, issuer, audience and times are right."""
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise InvalidTokenError("The token is not signed by this cluster.")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # that of the key, whatever the token says
                audience=READER_AUDIENCE,
                issuer=self._access.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "aud", "iss"]},
            )
        except jwt.PyJWTError as error:
            raise InvalidTokenError(f"The token is not valid: {error}.") from None
        return claims


def _account(bound: dict[str, Any]) -> tuple[Any, Any]:
    account = bound.get("serviceaccount")
    return bound.get("namespace"), account.get("name") if isinstance(account, dict) else None
