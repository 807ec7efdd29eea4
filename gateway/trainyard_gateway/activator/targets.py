"""Which ModelDeployment a request is for. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = "x-trainyard-deployment"
"""Set by the HTTPRoute of a ModelDeployment, whose host name says nothing: `namespace/name`."""
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?P<name>{_LABEL})\.(?P<namespace>{_LABEL})(\.svc(\.[-a-z0-9.]+)?)?\.?(:\d+)?")
_TARGET = re.compile(rf"(?P<namespace>{_LABEL})/(?P<name>{_LABEL})")


class Target(NamedTuple):
    """Name of a ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def target_of(host: str, header: str | None) -> Target | None:
    """Return the ModelDeployment that a request names by its Host, or by the header of a route; None without one."""
    match = _TARGET.fullmatch(header) if header is not None else _HOST.fullmatch(host.lower())
    return None if match is None else Target(match["namespace"], match["name"])
