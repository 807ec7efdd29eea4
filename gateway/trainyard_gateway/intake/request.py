"""Reads the token and the body of a report request."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from trainyard_gateway.intake.errors import ReportRejectedError
from trainyard_gateway.intake.report_schema import BODY_LIMIT

_BODY_SECONDS = 10
_DISCARD_LIMIT = 32 * 1024 * 1024
"""Bytes of an oversized body that are read and discarded: a client that still sends does not read the response."""


def bearer_token(header: str) -> str:
    """Return the token of an Authorization header; empty if it has none."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def read_body(request: Request) -> bytes:
    """Read the body.

    Raises:
        ReportRejectedError: 408 or 400, it did not arrive completely; 413, it is larger than BODY_LIMIT.
    """
    body, size = b"", 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                body = body + chunk if size <= BODY_LIMIT else b""
                if size > _DISCARD_LIMIT:
                    break
    except TimeoutError as error:
        message = f"the body did not arrive within {_BODY_SECONDS} s; send it again"
        raise ReportRejectedError(408, "BodyTimeout", message) from error
    except ClientDisconnect as error:
        message = "the connection closed before the body was complete; send it again"
        raise ReportRejectedError(400, "BodyIncomplete", message) from error
    if size > BODY_LIMIT:
        message = f"the body has more than {BODY_LIMIT} bytes; send fewer metrics and checkpoints"
        raise ReportRejectedError(413, "BodyTooLarge", message)
    return body
