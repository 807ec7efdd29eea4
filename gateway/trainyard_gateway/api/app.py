"""The HTTP app of the REST API."""

from __future__ import annotations

from fastapi import FastAPI

from trainyard_gateway.api.errors import add_error_handlers
from trainyard_gateway.api.routers import modeldeployments, trainingjobs
from trainyard_gateway.services.modeldeployments import ModelDeploymentService
from trainyard_gateway.services.objects import UserObjects
from trainyard_gateway.services.trainingjobs import TrainingJobService


def create_api_app(objects: UserObjects) -> FastAPI:
    """Create the app; it serves its OpenAPI document at /openapi.json.

    Args:
        objects: Reads objects with the tokens of users.
    """
    # FastAPI's pages at /docs and /redoc load scripts from a CDN.
    app = FastAPI(title="Trainyard API", version="v1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(trainingjobs.create_router(TrainingJobService(objects)))
    app.include_router(modeldeployments.create_router(ModelDeploymentService(objects)))
    add_error_handlers(app)
    return app
