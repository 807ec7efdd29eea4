"""Service account tokens and the keys that verify them, as an API server makes them."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER, AUDIENCE = "https://kubernetes.default.svc.cluster.local", "trainyard.dev/artifacts"
REMOVED = object()
"""As a claim of `Signer.token`: the token has none of that name."""


class Signer:
    """One signing key of an API server."""

    def __init__(self, identifier: str = "one", algorithm: str = "RS256") -> None:
        self.identifier, self.algorithm = identifier, algorithm
        self.key: Any = rsa.generate_private_key(65537, 2048)
        if algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())

    def jwk(self) -> dict[str, Any]:
        """Return the public key as the API server publishes it."""
        encoder = jwt.get_algorithm_by_name(self.algorithm)
        public = json.loads(encoder.to_jwk(self.key.public_key()))
        return {**public, "kid": self.identifier, "use": "sig", "alg": self.algorithm}

    def token(self, namespace: str = "team", account: str = "default", bound: Any = None, **claims: Any) -> str:
        """Return a token of a service account; `bound` replaces the claim kubernetes.io, `claims` the others."""
        now = int(time.time())
        own = {"namespace": namespace, "serviceaccount": {"name": account, "uid": "1"}}
        good = {
            "aud": [AUDIENCE],
            "exp": now + 3600,
            "iat": now,
            "iss": ISSUER,
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": own if bound is None else bound,
        }
        chosen = {name: value for name, value in (good | claims).items() if value is not REMOVED}
        return jwt.encode(chosen, self.key, algorithm=self.algorithm, headers={"kid": self.identifier})
