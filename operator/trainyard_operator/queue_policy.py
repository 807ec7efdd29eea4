"""The queue's settings in a file that an administrator changes while the operator runs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from trainyard_operator.queue.policy import Policy

logger = logging.getLogger(__name__)


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)

    held: bool = False
    backfill: bool = False
    preemption: bool = False
    namespace_gpus: dict[str, int] = Field(default={})
    default_namespace_gpus: int | None = Field(default=None, ge=0)
    start_seconds: int | None = Field(default=Policy.start_seconds, ge=1)


class PolicyFile:
    """Reads the file when it changed; a mistake in it leaves the settings as they were, and is told once.

    Args:
        path: The file; None for the defaults.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._text: str | None = None
        self._policy = Policy()

    def current(self) -> Policy:
        """The settings in force."""
        if self._path is None:
            return self._policy
        try:
            text = self._path.read_text()
        except OSError as error:
            text = ""
            if self._text != text:
                logger.warning("the queue's settings cannot be read, they stay as they were: %s", error)
            self._text = text
            return self._policy
        if text != self._text:
            self._text = text
            self._take(text)
        return self._policy

    def _take(self, text: str) -> None:
        try:
            document = _Document.model_validate_json(text)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
            logger.error("the queue's settings in %s are wrong and stay as they were: %s", self._path, faults)
            return
        self._policy = Policy(**document.model_dump())
        logger.info("the queue's settings: %s", json.dumps(document.model_dump(by_alias=True)))
