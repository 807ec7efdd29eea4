"""Verifies service account tokens offline, with the public keys of the API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jwt

from trainyard_crds.serving import READER_AUDIENCE

_ALGORITHMS = ["RS256", "ES256", "ES384", "ES512", "RS384", "RS512"]
_LEEWAY = 60
"""Seconds by which the clocks of nodes may differ."""
_KUBERNETES = "kubernetes.io"


class RefusedTokenError(Exception):
    """A token does not permit reading; the text is a sentence without the token."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Verifies tokens.

    Attributes:
        keys: JSON Web Key Set of the API server.
        issuer: Issuer of its tokens.
        namespace: Namespace whose pods may read.
        others: Further service accounts that may read, as `namespace/name`.
    """

    keys: dict[str, Any]
    issuer: str
    namespace: str
    others: frozenset[str] = frozenset()

    def check(self, token: str) -> None:
        """Check one token.

        Raises:
            RefusedTokenError: it does not permit reading.
        """
        try:
            header = jwt.get_unverified_header(token)
            known = [key for key in jwt.PyJWKSet.from_dict(self.keys).keys if key.key_id == header.get("kid")]
            if not known:
                raise RefusedTokenError("The token is not signed by this cluster.")
            claims = jwt.decode(
                token,
                known[0].key,
                algorithms=_ALGORITHMS,
                audience=READER_AUDIENCE,
                issuer=self.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "aud", "iss"]},
            )
        except jwt.PyJWTError as error:
            raise RefusedTokenError(f"The token is not valid: {error}.") from None
        bound = claims.get(_KUBERNETES) or {}
        namespace, account = bound.get("namespace"), (bound.get("serviceaccount") or {}).get("name")
        if namespace != self.namespace and f"{namespace}/{account}" not in self.others:
            raise RefusedTokenError(f"A token of namespace {namespace} does not permit reading in {self.namespace}.")
