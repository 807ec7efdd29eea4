"""Requests to the API server, by actor, from its audit log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
SERVICE_ACCOUNTS = {part: f"system:serviceaccount:trainyard:trainyard-{part}" for part in ("operator", "gateway")}
CLIENT = "admin"
"""User of the benchmark itself, and of kwok, which its user agent distinguishes."""


@dataclass(frozen=True)
class Request:
    """One finished request.

    Attributes:
        actor: `operator`, `gateway`, `client`, `kwok`, or the user.
        verb: RBAC verb.
        resource: Resource, with its subresource.
        code: HTTP status of the response.
    """

    actor: str
    verb: str
    resource: str
    code: int

    @property
    def label(self) -> str:
        """Return verb and resource."""
        return f"{self.verb} {self.resource}"


def now() -> str:
    """Return the time in the format of the audit log."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def requests(log: Path, *, since: str, until: str, containing: str) -> list[Request]:
    """Return the finished requests of a period whose audit line contains a text.

    Args:
        log: The audit log; rotated files are in the same directory.
        since: Start of the period.
        until: End of the period, exclusive.
        containing: Text that the line must contain: a namespace or a user.
    """
    found = []
    for path in sorted(log.parent.glob("audit*.jsonl")):
        with path.open() as lines:
            for line in lines:
                if containing in line:
                    entry = json.loads(line)
                    if entry["stage"] == "ResponseComplete" and since <= entry["requestReceivedTimestamp"] < until:
                        found.append(_request(entry))
    return found


def _request(entry: dict[str, Any]) -> Request:
    target = entry.get("objectRef") or {}
    parts = [target.get("resource", entry["requestURI"].split("?")[0]), target.get("subresource")]
    return Request(
        actor=_actor(entry),
        verb=entry["verb"],
        resource="/".join(part for part in parts if part),
        code=int(entry["responseStatus"]["code"]),
    )


def _actor(entry: dict[str, Any]) -> str:
    user = str(entry["user"]["username"])
    if user == CLIENT:
        return "kwok" if "kwok" in str(entry.get("userAgent", "")) else "client"
    return next((part for part, account in SERVICE_ACCOUNTS.items() if user == account), user.rsplit(":", 1)[-1])
