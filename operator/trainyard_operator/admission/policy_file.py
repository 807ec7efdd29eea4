"""The administrator's settings of the queue, in a file that is reloaded when it changes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from trainyard_operator.queue.elastic import ElasticPool
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Taint

logger = logging.getLogger(__name__)


_GPU = "nvidia.com/gpu"
_NODE_SECONDS = 1200
"""Default start timeout of an elastic pool: cluster-autoscaler gives up a node after 15 minutes."""
_MOST_NODES = 5000


class _Block(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)


class _Taint(_Block):
    key: str = Field(min_length=1)
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class _ElasticPool(_Block):
    name: str = Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    gpu_resource: str = Field(default=_GPU, pattern="^[^/]+/[^/]+$")
    max_nodes: int = Field(ge=0, le=_MOST_NODES)
    gpus_per_node: int = Field(ge=1)
    labels: dict[str, str] = Field(default={})
    taints: tuple[_Taint, ...] = Field(default=(), strict=False)
    start_seconds: int = Field(default=_NODE_SECONDS, ge=1)

    def to_pool(self) -> ElasticPool:
        values = self.model_dump() | {"taints": tuple(Taint(**taint.model_dump()) for taint in self.taints)}
        return ElasticPool(**values)


class _Document(_Block):
    held: bool = False
    backfill: bool = False
    preemption: bool = False
    namespace_gpus: dict[str, Annotated[int, Field(ge=0)]] = Field(default={})
    default_namespace_gpus: int | None = Field(default=None, ge=0)
    start_seconds: int | None = Field(default=Policy.start_seconds, ge=1)
    elastic_pools: tuple[_ElasticPool, ...] = Field(default=(), strict=False)

    @field_validator("elastic_pools")
    @classmethod
    def _names_differ(cls, pools: tuple[_ElasticPool, ...]) -> tuple[_ElasticPool, ...]:
        names = [pool.name for pool in pools]
        if len(set(names)) < len(names):
            raise ValueError("each entry must have a name of its own")
        return pools

    def to_policy(self) -> Policy:
        pools = tuple(pool.to_pool() for pool in self.elastic_pools)
        return Policy(**self.model_dump() | {"elastic_pools": pools})


class PolicyFile:
    """Reads the file when it changes; an invalid file is reported and leaves the settings as they were.

    Args:
        path: The file; None for the defaults.

    Attributes:
        fault: What is wrong with the file as it is now; None if it is valid.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._text: str | None = None
        self._document = _Document()
        self._policy = Policy()
        self.fault: str | None = None

    def current(self) -> Policy:
        """Return the settings in force."""
        if self._path is None:
            return self._policy
        try:
            text = self._path.read_text()
        except OSError as error:
            self._report(f"The queue's settings cannot be read and stay as they were: {error}")
            self._text = None
            return self._policy
        if text != self._text:
            self._text = text
            self._load(text)
        return self._policy

    def describe(self) -> dict[str, Any]:
        """Return the settings in force, and what is wrong with the file."""
        self.current()
        return self._document.model_dump(by_alias=True) | ({"fault": self.fault} if self.fault else {})

    def _load(self, text: str) -> None:
        try:
            document = _Document.model_validate_json(text)
        except ValidationError as error:
            faults = " ".join(_sentence(one) for one in error.errors())
            self._report(f"The queue's settings in {self._path} are wrong and stay as they were. {faults}")
            return
        self.fault = None
        self._document, self._policy = document, document.to_policy()
        logger.info("the queue's settings: %s", json.dumps(document.model_dump(by_alias=True)))

    def _report(self, fault: str) -> None:
        """Log a fault once: the file is read in every cycle."""
        if fault != self.fault:
            logger.error("%s", fault)
        self.fault = fault


def _sentence(error: ErrorDetails) -> str:
    """Return one fault as a sentence: the field, its value, and what it may be."""
    field = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        block: type[BaseModel] = (
            _Document if len(error["loc"]) == 1 else _Taint if "taints" in error["loc"] else _ElasticPool
        )
        names = ", ".join(to_camel(name) for name in block.model_fields)
        return f"There is no setting {field}; there are {names}."
    if not field:
        return f"{error['msg']}."
    return f"{field} is {json.dumps(error['input'])}: {error['msg'].replace('Input', 'it')}."


def _block_of(error: ErrorDetails) -> type[_Block]:
    """Return the block that lacks the setting which an error is about."""
    if "taints" in error["loc"]:
        return _Taint
    return _ElasticPool if len(error["loc"]) > 1 else _Document
