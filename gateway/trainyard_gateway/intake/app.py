"""The HTTP surfaces: the intake, and the plain port with health and metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from trainyard_crds.constants import kubeflow_path, progress_path
from trainyard_gateway.errors import Refusal
from trainyard_gateway.intake.report_schema import BODY_LIMIT, Update, kubeflow_update, report_update
from trainyard_gateway.intake.report_service import Intake
from trainyard_gateway.jobs import JobKey
from trainyard_gateway.metrics import Metrics

logger = logging.getLogger(__name__)

_BODY_SECONDS = 10
_DISCARD_LIMIT = 32 * 1024 * 1024
"""Bytes read and thrown away of a body that is too large: a client that still sends would not see the answer."""
Reader = Callable[[bytes, datetime], Update]


class Health(Protocol):
    """What the health endpoints ask."""

    def ready(self) -> bool:
        """Whether the TrainingJobs are known."""

    def alive(self) -> bool:
        """Whether the watch of TrainingJobs works."""


def intake_app(intake: Intake, health: Health, metrics: Metrics, now: Callable[[], datetime]) -> FastAPI:
    """The routes training pods post to.

    Args:
        intake: Decides about reports.
        health: Says whether the TrainingJobs are known.
        metrics: Counts reports.
        now: The time, with a zone.
    """
    app = FastAPI(title="Trainyard gateway", openapi_url=None)

    async def take(request: Request, body_name: str, read: Reader) -> Response:
        key = JobKey(request.path_params["namespace"], request.path_params["name"])
        result = "Accepted"
        try:
            await _take(request, key, read)
        except Refusal as refusal:
            result = refusal.reason
            _log(refusal, key)
            raise
        finally:
            metrics.reports.labels(body_name, result).inc()
        return JSONResponse(status_body("Success", 200))

    async def _take(request: Request, key: JobKey, read: Reader) -> None:
        if not health.ready():
            raise Refusal(503, "NotReady", "the gateway is starting and does not know the jobs yet", retry_after=2)
        job, caller = await intake.admit(key, bearer_token(request.headers.get("authorization", "")))
        intake.accept(job, caller, read(await _read_body(request), now()))

    @app.post(progress_path("{namespace}", "{name}"))
    async def progress(request: Request) -> Response:
        return await take(request, "trainyard", report_update)

    @app.post(kubeflow_path("{namespace}", "{name}"))
    async def kubeflow(request: Request) -> Response:
        return await take(request, "kubeflow", kubeflow_update)

    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_fault)
    return app


def health_app(health: Health, registry: CollectorRegistry) -> FastAPI:
    """The routes the kubelet and Prometheus read.

    Args:
        health: Answers /healthz and /readyz.
        registry: Shown at /metrics.
    """
    app = FastAPI(title="Trainyard gateway health", openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _verdict(health.alive(), "the watch of TrainingJobs is silent; the process should be restarted")

    @app.get("/readyz")
    async def readyz() -> Response:
        return _verdict(health.ready(), "the TrainingJobs were not listed yet")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def bearer_token(header: str) -> str:
    """The token of an Authorization header; empty when there is none."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def status_body(status: str, code: int, **fields: Any) -> dict[str, Any]:
    """A Kubernetes Status object, as kubectl users know it."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status, "code": code, **fields}


async def _read_body(request: Request) -> bytes:
    """The body, at most BODY_LIMIT bytes of it."""
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
        raise Refusal(408, "BodyTimeout", message) from error
    except ClientDisconnect as error:
        raise Refusal(400, "BodyIncomplete", "the connection closed before the whole body was there") from error
    if size > BODY_LIMIT:
        message = f"the body has more than {BODY_LIMIT} bytes; send fewer metrics and checkpoints"
        raise Refusal(413, "BodyTooLarge", message)
    return body


def _verdict(good: bool, problem: str) -> Response:
    return PlainTextResponse("ok" if good else problem, status_code=200 if good else 503)


async def _answer_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    fields: dict[str, Any] = {"reason": refusal.reason, "message": refusal.message}
    headers: dict[str, str] = {}
    if refusal.retry_after is not None:
        fields["details"] = {"retryAfterSeconds": refusal.retry_after}
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(status_body("Failure", refusal.code, **fields), refusal.code, headers)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason, message = "NotFound", "there is nothing here; reports go to the URL in the training pod's environment"
    if error.status_code == 405:
        reason, message = "MethodNotAllowed", "reports are sent with POST"
    fields = {"reason": reason, "message": message}
    return JSONResponse(status_body("Failure", error.status_code, **fields), error.status_code, error.headers)


async def _answer_fault(request: Request, error: Exception) -> Response:
    fields = {"reason": "InternalError", "message": "the gateway failed on this report; its log says why"}
    return JSONResponse(status_body("Failure", 500, **fields), 500)


def _log(refusal: Refusal, key: JobKey) -> None:
    # The path is a stranger's text until the caller is known.
    extra = {"namespace": key.namespace[:63], "job": key.name[:63], "reason": refusal.reason, "code": refusal.code}
    logger.info("report refused: %s", refusal.message, extra=extra)
