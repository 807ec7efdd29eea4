"""Endpoints of TrainingJobs: list and detail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from trainyard_crds.trainingjob import TrainingJob
from trainyard_crds.trainingjob_status import Phase
from trainyard_gateway.api.authentication import CallerToken
from trainyard_gateway.api.errors import ERROR_RESPONSES, Problem
from trainyard_gateway.services.trainingjobs import TrainingJobService

Namespace = Annotated[
    str, Path(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63, description="Namespace of the TrainingJobs.")
]
Name = Annotated[
    str,
    Path(
        pattern="^[a-z0-9]([-_a-z0-9.]*[a-z0-9])?$",
        max_length=253,
        description="Name of the TrainingJob; `_` is read as `-`.",
    ),
]


class ListQuery(BaseModel):
    """Query parameters of the list."""

    model_config = ConfigDict(extra="forbid")

    phase: list[Phase] = Field(default=[], description="Return TrainingJobs in these phases only. Default: all.")
    limit: int = Field(default=50, ge=1, le=500, description="Maximum number of TrainingJobs.")
    offset: int = Field(default=0, ge=0, le=1_000_000, description="Number of newer TrainingJobs to skip.")


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
