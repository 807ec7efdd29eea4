"""Who asked the API server for what, from its audit log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
SERVICE_ACCOUNTS = {part: f"system:serviceaccount:trainyard:trainyard-{part}" for part in ("operator", "gateway")}
CLIENT = "admin"
"""User of the benchmark itself; kwok is told apart by its user agent."""


@dataclass(frozen=True)
class Request:
    """One finished request.

    Attributes:
        who: `operator`, `gateway`, `client`, `kwok`, or the user.
        verb: As in RBAC.
        resource: With its subresource.
        code: HTTP status of the answer.
    """

    who: str
    verb: str
    resource: str
    code: int

    @property
    def label(self) -> str:
        """Verb and resource."""
        return f"{self.verb} {self.resource}"


def now() -> str:
    """The time as the audit log writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def requests(log: Path, *, since: str, until: str, containing: str) -> list[Request]:
    """Finished requests received in a period whose audit line holds a text.

    Args:
        log: The audit log; rotated files lie beside it.
        since: First moment.
        until: First moment after it.
        containing: Text that a line must hold: a namespace or a user.
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
        who=_who(entry),
        verb=entry["verb"],
        resource="/".join(part for part in parts if part),
        code=int(entry["responseStatus"]["code"]),
    )


def _who(entry: dict[str, Any]) -> str:
    user = str(entry["user"]["username"])
    if user == CLIENT:
        return "kwok" if "kwok" in str(entry.get("userAgent", "")) else "client"
    return next((part for part, account in SERVICE_ACCOUNTS.items() if user == account), user.rsplit(":", 1)[-1])
