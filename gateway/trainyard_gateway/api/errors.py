"""Error responses of the REST API: `{"detail": sentence}`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from trainyard_gateway.errors import GatewayError
from trainyard_kube.errors import ApiRefusedError, ApiUnreachableError

_RETRY_SECONDS = 5
_PASSED_ON = frozenset({403, 404})
"""Statuses whose response repeats the sentence of the API server."""


class Problem(BaseModel):
    """Body of an error response."""

    detail: str = Field(description="What is wrong and what to do, in a sentence.")


class TokenMissingError(GatewayError):
    """A request without a bearer token."""


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The token is missing, expired or invalid."},
    403: {"model": Problem, "description": "The caller's RBAC does not permit the request."},
    503: {"model": Problem, "description": "The API server does not answer; retry after `Retry-After` seconds."},
}
"""Error responses of every endpoint, for OpenAPI."""


def add_error_handlers(app: FastAPI) -> None:
    """Map the errors of services and authentication to responses."""
    app.add_exception_handler(TokenMissingError, _respond_token_missing)
    app.add_exception_handler(ApiRefusedError, _respond_refused)
    app.add_exception_handler(ApiUnreachableError, _respond_unavailable)
    app.add_exception_handler(Exception, _respond_internal_error)


async def _respond_token_missing(request: Request, error: Exception) -> Response:
    return _unauthorized(str(error))


async def _respond_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiRefusedError)
    if error.code == 401:
        return _unauthorized("the API server does not accept the token; it is expired or invalid: request a new one")
    if error.code in _PASSED_ON:
        return _problem(error.code, error.message)
    return await _respond_unavailable(request, error)


async def _respond_unavailable(request: Request, error: Exception) -> Response:
    detail = f"the Kubernetes API server cannot serve the request now: {error}"
    return _problem(503, detail, {"Retry-After": str(_RETRY_SECONDS)})


async def _respond_internal_error(request: Request, error: Exception) -> Response:
    return _problem(500, "the gateway failed on this request; its log has the cause")


def _unauthorized(detail: str) -> Response:
    return _problem(401, detail, {"WWW-Authenticate": "Bearer"})


def _problem(code: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(Problem(detail=detail).model_dump(), code, headers)
