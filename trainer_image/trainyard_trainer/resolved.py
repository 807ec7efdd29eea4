"""Values that a run resolves once and reuses when it resumes."""

from __future__ import annotations

from typing import Protocol


class Resolved(Protocol):
    """resolved.json: values such as a hub revision, resolved once and reused on resume."""

    def get(self, key: str) -> str | None:
        """Return the value of an earlier start of this run, or None."""

    def put(self, key: str, value: str) -> None:
        """Keep a value for every later start of this run."""
