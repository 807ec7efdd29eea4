"""Parameters that the endpoints of all kinds have."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

Namespace = Annotated[
    str, Path(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63, description="Namespace of the objects.")
]
Name = Annotated[
    str,
    Path(
        pattern="^[a-z0-9]([-_a-z0-9.]*[a-z0-9])?$",
        max_length=253,
        description="Name of the object; `_` is read as `-`.",
    ),
]


class PageQuery(BaseModel):
    """Query parameters of every list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=500, description="Maximum number of objects.")
    offset: int = Field(default=0, ge=0, le=1_000_000, description="Number of newer objects to skip.")
