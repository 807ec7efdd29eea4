"""Endpoints of TrainingJobs: list and detail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from trainyard_crds.trainingjob import TrainingJob
from trainyard_crds.trainingjob_status import Phase
from trainyard_gateway.api.authentication import CallerToken
from trainyard_gateway.api.errors import ERROR_RESPONSES, Problem
from trainyard_gateway.api.parameters import Name, Namespace, PageQuery
from trainyard_gateway.services.trainingjobs import TrainingJobService


class ListQuery(PageQuery):
    """Query parameters of the list."""

    phase: list[Phase] = Field(default=[], description="Return TrainingJobs in these phases only. Default: all.")


class TrainingJobList(BaseModel):
    """A page of TrainingJobs, newest first."""

    items: list[TrainingJob] = Field(description="The TrainingJobs of this page, as `kubectl get -o json` shows them.")
    total: int = Field(description="Number of TrainingJobs that match, on all pages; also in `X-Total-Count`.")


def create_router(service: TrainingJobService) -> APIRouter:
    """Create the router.

    Args:
        service: Reads the TrainingJobs.
    """
    router = APIRouter(
        prefix="/apis/v1/namespaces/{namespace}/trainingjobs", tags=["TrainingJobs"], responses=ERROR_RESPONSES
    )

    @router.get("", operation_id="listTrainingJobs", response_model=TrainingJobList)
    async def list_training_jobs(
        token: CallerToken, namespace: Namespace, query: Annotated[ListQuery, Query()]
    ) -> Response:
        """Return the TrainingJobs of a namespace, newest first."""
        page = await service.list_page(token, namespace, phases=query.phase, limit=query.limit, offset=query.offset)
        body = {"items": page.items, "total": page.total}
        return JSONResponse(body, headers={"X-Total-Count": str(page.total)})

    @router.get(
        "/{name}",
        operation_id="getTrainingJob",
        response_model=TrainingJob,
        responses={404: {"model": Problem, "description": "There is no TrainingJob of that name."}},
    )
    async def get_training_job(token: CallerToken, namespace: Namespace, name: Name) -> Response:
        """Return one TrainingJob, as `kubectl get -o json` shows it."""
        return JSONResponse(await service.get(token, namespace, name))

    return router
