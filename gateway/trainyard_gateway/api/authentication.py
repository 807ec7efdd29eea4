"""The caller's token, which the API server authenticates."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from trainyard_gateway.api.errors import TokenMissingError

_bearer = HTTPBearer(auto_error=False, description="A Kubernetes token, for example of `kubectl create token`.")


def caller_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    """Return the bearer token of the request.

    Raises:
        TokenMissingError: the request has none.
    """
    if credentials is None or not credentials.credentials:
        raise TokenMissingError("the request has no token; send 'Authorization: Bearer' with a Kubernetes token")
    return credentials.credentials


CallerToken = Annotated[str, Depends(caller_token)]
