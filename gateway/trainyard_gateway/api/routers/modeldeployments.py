"""Endpoints of ModelDeployments: list and detail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from trainyard_crds.modeldeployment import ModelDeployment
from trainyard_gateway.api.authentication import CallerToken
from trainyard_gateway.api.errors import ERROR_RESPONSES, Problem
from trainyard_gateway.api.parameters import Name, Namespace, PageQuery
from trainyard_gateway.services.modeldeployments import ModelDeploymentService


class ListQuery(PageQuery):
    """Query parameters of the list."""

    ready: bool | None = Field(
        default=None, description="true: return ModelDeployments that are ready only; false: the others. Default: all."
    )


class ModelDeploymentList(BaseModel):
    """A page of ModelDeployments, newest first."""

    items: list[ModelDeployment] = Field(
        description="The ModelDeployments of this page, as `kubectl get -o json` shows them."
    )
    total: int = Field(description="Number of ModelDeployments that match, on all pages; also in `X-Total-Count`.")


def create_router(service: ModelDeploymentService) -> APIRouter:
    """Create the router.

    Args:
        service: Reads the ModelDeployments.
    """
    router = APIRouter(
        prefix="/apis/v1/namespaces/{namespace}/modeldeployments", tags=["ModelDeployments"], responses=ERROR_RESPONSES
    )

    @router.get("", operation_id="listModelDeployments", response_model=ModelDeploymentList)
    async def list_model_deployments(
        token: CallerToken, namespace: Namespace, query: Annotated[ListQuery, Query()]
    ) -> Response:
        """Return the ModelDeployments of a namespace, newest first."""
        page = await service.list_page(token, namespace, ready=query.ready, limit=query.limit, offset=query.offset)
        body = {"items": page.items, "total": page.total}
        return JSONResponse(body, headers={"X-Total-Count": str(page.total)})

    @router.get(
        "/{name}",
        operation_id="getModelDeployment",
        response_model=ModelDeployment,
        responses={404: {"model": Problem, "description": "There is no ModelDeployment of that name."}},
    )
    async def get_model_deployment(token: CallerToken, namespace: Namespace, name: Name) -> Response:
        """Return one ModelDeployment, as `kubectl get -o json` shows it."""
        return JSONResponse(await service.get(token, namespace, name))

    return router
