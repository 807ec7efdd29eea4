"""Error bodies in the shape of the OpenAI API, as the engine writes them. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    413: "BadRequestError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error."""
    kind = _TYPES.get(status, HTTPStatus(status).phrase.replace(" ", "") + "Error")
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def unknown_model(name: object) -> dict[str, Any]:
    """Return the body for a model that is not served: the engine's own words."""
    return error_body(404, f"The model `{name}` does not exist.", "model")
