"""Requests as the proxy sees them, and faults that it can inject."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, urlsplit

from trainyard_crds.constants import CA_CONFIG_MAP

Object = dict[str, Any]
READS = {"GET", "HEAD"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request to the API server.

    Attributes:
        at: Arrival time in monotonic seconds.
        method: HTTP method.
        resource: Plural name, with the subresource after a slash.
        namespace: Namespace; empty for all namespaces.
        name: Name of the object; for a POST, the name in the body.
        watch: Whether the request is a watch.
        about: Distinguishes writes of one resource: phase of a status, reason of an Event.
    """

    at: float
    method: str
    resource: str
    namespace: str
    name: str
    watch: bool = False
    about: str = ""

    @property
    def is_write(self) -> bool:
        """Whether the request is a write."""
        return self.method not in READS

    @property
    def is_list_of_all(self) -> bool:
        """Whether the request lists a kind in all namespaces."""
        return self.method == "GET" and not (self.watch or self.namespace or self.name)

    @property
    def label(self) -> str:
        """Description of the request, equal in every run."""
        return " ".join(part for part in (self.method, self.resource, self.about) if part)


def parse(at: float, method: str, target: str, body: bytes) -> Request:
    """Parse the request line and the body.

    Args:
        at: Monotonic seconds.
        method: HTTP method.
        target: Path and query.
        body: JSON document or empty.
    """
    url = urlsplit(target)
    parts = url.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]  # /api/v1/... and /apis/GROUP/VERSION/...
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = [*parts, "", "", ""][:3]
    document = _document(body)
    return Request(
        at=at,
        method=method,
        resource=f"{resource}/{subresource}" if subresource else resource,
        namespace=namespace,
        name=name or str(document.get("metadata", {}).get("name", "")),
        watch=parse_qs(url.query).get("watch") == ["true"],
        about=_about(name, document),
    )


def _document(body: bytes) -> Object:
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _about(name: str, document: Object) -> str:
    if name == CA_CONFIG_MAP:
        return name
    if "suspend" in document.get("spec", {}) and document.get("kind") is None:
        return f"suspend={document['spec']['suspend']}"
    return str(document.get("status", {}).get("phase") or document.get("reason") or "")


class Action(StrEnum):
    """A fault of a request; the first three kill the client (`Proxy.kill`)."""

    KILL_BEFORE = "kill -9 before it is forwarded"
    KILL_COMMITTED = "kill -9 after the commit, before the answer"
    KILL_ANSWERED = "kill -9 after the answer"
    CONFLICT = "answer 409"
    THROTTLE = "answer 429, Retry-After: 1"
    ERROR = "answer 500"
    UNAVAILABLE = "answer 503"
    RESET = "reset before it is forwarded"
    LOSE = "forward it and lose the reply"


KILLS = (Action.KILL_BEFORE, Action.KILL_COMMITTED, Action.KILL_ANSWERED)
REFUSALS = {
    Action.CONFLICT: (409, "Conflict"),
    Action.THROTTLE: (429, "TooManyRequests"),
    Action.ERROR: (500, "InternalError"),
    Action.UNAVAILABLE: (503, "ServiceUnavailable"),
}


@dataclass(kw_only=True)
class Fault:
    """A fault of requests.

    Attributes:
        action: The fault.
        at: Selects the requests.
        nth: The first affected request of those, from 1.
        times: Number of affected requests.
        seen: Selected requests so far.
        done: Affected requests so far.
    """

    action: Action
    at: Callable[[Request], bool]
    nth: int = 1
    times: int = 1
    seen: int = field(default=0, init=False)
    done: int = field(default=0, init=False)

    def matches(self, request: Request) -> bool:
        """Count the request and return whether it is affected."""
        if self.done >= self.times or not self.at(request):
            return False
        self.seen += 1
        if self.seen < self.nth:
            return False
        self.done += 1
        return True


@dataclass(kw_only=True)
class WatchFault:
    """A fault of one watch event.

    Attributes:
        resource: Plural name.
        namespace: Namespace of the event's object.
        nth: Number of the affected event, from 1.
        hold: Delay in seconds of the event and all later ones; None drops the event.
        seen: Matching events so far.
        done: Whether the fault was injected.
    """

    resource: str
    namespace: str
    nth: int
    hold: float | None = None
    seen: int = field(default=0, init=False)
    done: bool = field(default=False, init=False)

    def matches(self, resource: str, event: Object) -> bool:
        """Count the event and return whether it is affected."""
        namespace = event.get("object", {}).get("metadata", {}).get("namespace")
        if self.done or resource != self.resource or namespace != self.namespace:
            return False
        self.seen += 1
        self.done = self.seen == self.nth
        return self.done
