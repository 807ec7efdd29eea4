"""Conditions of a status, as API conventions and kstatus want them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, format_time
from trainyard_operator.reconcile.plan import Observation

STALLED = "Stalled"
"""kstatus: True when the object failed and stays so without a change by a user."""
READY = "Ready"


class Condition(NamedTuple):
    """State of one condition."""

    holds: bool
    reason: str
    message: str = ""


def conditions(observed: Observation, wanted: Mapping[str, Condition | None], now: datetime) -> list[Object]:
    """Return the entries of `status.conditions`; a type whose value is None is left out.

    `lastTransitionTime` changes with the status of a condition only.
    """
    return [_entry(observed, kind, found, now) for kind, found in wanted.items() if found is not None]


def known_condition(observed: Observation, kind: str) -> Condition | None:
    """Return a condition as it is stored."""
    found = condition(observed.obj, kind)
    return Condition(found["status"] == "True", found["reason"], found.get("message", "")) if found else None


def _entry(observed: Observation, kind: str, wanted: Condition, now: datetime) -> Object:
    status = "True" if wanted.holds else "False"
    known = condition(observed.obj, kind)
    since = known["lastTransitionTime"] if known and known["status"] == status else format_time(now)
    entry: Object = {
        "type": kind,
        "status": status,
        "reason": wanted.reason,
        "message": wanted.message,
        "lastTransitionTime": since,
    }
    generation = observed.obj["metadata"].get("generation")
    return entry if generation is None else entry | {"observedGeneration": generation}
