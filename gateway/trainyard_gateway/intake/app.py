"""The HTTP app that trainer pods post reports to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import Counter
from starlette.exceptions import HTTPException

from trainyard_crds.constants import kubeflow_path, progress_path
from trainyard_gateway.intake.errors import ReportRejectedError
from trainyard_gateway.intake.job_cache import JobKey
from trainyard_gateway.intake.report_schema import ReportUpdate, parse_kubeflow_report, parse_report
from trainyard_gateway.intake.report_service import ReportService
from trainyard_gateway.intake.request import bearer_token, read_body

logger = logging.getLogger(__name__)

Parser = Callable[[bytes, datetime], ReportUpdate]


def create_intake_app(
    service: ReportService, ready: Callable[[], bool], reports: Counter, now: Callable[[], datetime]
) -> FastAPI:
    """Create the app with the two report routes.

    Args:
        service: Authenticates and accepts reports.
        ready: Returns whether the TrainingJobs were listed.
        reports: Counts reports by body and result.
        now: The current time, with a zone.
    """
    app = FastAPI(title="Trainyard gateway intake", openapi_url=None)

    async def handle(request: Request, body_name: str, parse: Parser) -> Response:
        key = JobKey(request.path_params["namespace"], request.path_params["name"])
        result = "Accepted"
        try:
            await accept(request, key, parse)
        except ReportRejectedError as error:
            result = error.reason
            _log(error, key)
            raise
        finally:
            reports.labels(body_name, result).inc()
        return JSONResponse(status_body("Success", 200))

    async def accept(request: Request, key: JobKey, parse: Parser) -> None:
        if not ready():
            message = "the gateway is starting and has not listed the TrainingJobs yet"
            raise ReportRejectedError(503, "NotReady", message, retry_after=2)
        job, pod = await service.authenticate(key, bearer_token(request.headers.get("authorization", "")))
        service.accept(job, pod, parse(await read_body(request), now()))

    @app.post(progress_path("{namespace}", "{name}"))
    async def progress(request: Request) -> Response:
        return await handle(request, "trainyard", parse_report)

    @app.post(kubeflow_path("{namespace}", "{name}"))
    async def kubeflow(request: Request) -> Response:
        return await handle(request, "kubeflow", parse_kubeflow_report)

    app.add_exception_handler(ReportRejectedError, _respond_rejected)
    app.add_exception_handler(HTTPException, _respond_http_exception)
    app.add_exception_handler(Exception, _respond_internal_error)
    return app


def status_body(status: str, code: int, **fields: Any) -> dict[str, Any]:
    """Return a Kubernetes Status object."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status, "code": code, **fields}


async def _respond_rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, ReportRejectedError)
    fields: dict[str, Any] = {"reason": error.reason, "message": error.message}
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        fields["details"] = {"retryAfterSeconds": error.retry_after}
        headers["Retry-After"] = str(error.retry_after)
    if error.code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(status_body("Failure", error.code, **fields), error.code, headers)


async def _respond_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason, message = "NotFound", "this path does not exist; reports go to the URL in the trainer pod's environment"
    if error.status_code == 405:
        reason, message = "MethodNotAllowed", "reports are sent with POST"
    fields = {"reason": reason, "message": message}
    return JSONResponse(status_body("Failure", error.status_code, **fields), error.status_code, error.headers)


async def _respond_internal_error(request: Request, error: Exception) -> Response:
    fields = {"reason": "InternalError", "message": "the gateway failed on this report; its log has the cause"}
    return JSONResponse(status_body("Failure", 500, **fields), 500)


def _log(error: ReportRejectedError, key: JobKey) -> None:
    # The path is untrusted text until the caller is authenticated.
    extra = {"namespace": key.namespace[:63], "job": key.name[:63], "reason": error.reason, "code": error.code}
    logger.info("report rejected: %s", error.message, extra=extra)
