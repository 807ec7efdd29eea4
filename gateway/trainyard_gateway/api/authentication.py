"""The caller's token, which the API server authenticates."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from trainyard_gateway.api.errors import TokenMissingError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,8192}")
"""RFC 6750, section 2.1; the length fits the header limit of API servers."""
_bearer = HTTPBearer(auto_error=False, description="A Kubernetes token, for example of `kubectl create token`.")


def caller_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    """Return the bearer token of the request.

    Raises:
        TokenMissingError: the request has none, or one that no header may have.
    """
    if credentials is None or not _TOKEN.fullmatch(credentials.credentials):
        raise TokenMissingError("the request has no valid token; send 'Authorization: Bearer' with a Kubernetes token")
    return credentials.credentials


CallerToken = Annotated[str, Depends(caller_token)]
