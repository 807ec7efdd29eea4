"""Fields that objects of every kind have: times, conditions, owners."""

from __future__ import annotations

from datetime import UTC, datetime

from trainyard_kube.paths import Object


def parse_time(text: str) -> datetime:
    """Parse an API timestamp.

    Raises:
        ValueError: it is no RFC 3339 time.
    """
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def format_time(instant: datetime) -> str:
    """Format an API timestamp: UTC, whole seconds."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_between(start: str, end: str) -> float:
    """Return the seconds from one API timestamp to another, at least 0."""
    return max(0.0, (parse_time(end) - parse_time(start)).total_seconds())


def condition(obj: Object | None, kind: str) -> Object | None:
    """Return the status condition of that type."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), None)


def holds(obj: Object | None, kind: str) -> bool:
    """Return whether the status condition of that type is True."""
    found = condition(obj, kind)
    return found is not None and found["status"] == "True"


def owned_by(obj: Object, uid: str) -> bool:
    """Return whether an object's controller has that UID."""
    owners = obj["metadata"].get("ownerReferences") or []
    return any(entry.get("controller") and entry["uid"] == uid for entry in owners)


def labels(obj: Object) -> dict[str, str]:
    """Return an object's labels."""
    return obj["metadata"].get("labels") or {}
