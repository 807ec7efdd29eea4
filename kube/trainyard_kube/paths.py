"""URL paths of the API, and the collections of Kubernetes' own kinds."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
"""An object of the API as JSON."""

JOBS = "/apis/batch/v1/{namespace}jobs"
PODS = "/api/v1/{namespace}pods"
NODES = "/api/v1/nodes"
RESOURCE_QUOTAS = "/api/v1/{namespace}resourcequotas"
CONFIG_MAPS = "/api/v1/{namespace}configmaps"
CLAIMS = "/api/v1/{namespace}persistentvolumeclaims"
SERVICES = "/api/v1/{namespace}services"
SECRETS = "/api/v1/{namespace}secrets"
LEASES = "/apis/coordination.k8s.io/v1/{namespace}leases"
EVENTS = "/apis/events.k8s.io/v1/{namespace}events"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path


def path(collection: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """Return the URL path of a collection, an object or its subresource."""
    base = collection.format(namespace=f"namespaces/{quote(namespace, safe='')}/" if namespace else "")
    parts = [base, *(quote(part, safe="") for part in (name, subresource) if part)]
    return "/".join(parts)


def group_version_plural(url: str) -> tuple[str, str, str]:
    """Return API group (empty for the core group), version and plural name of a collection's URL path."""
    parts = url.strip("/").split("/")
    return (parts[1], parts[2], parts[3]) if parts[0] == "apis" else ("", parts[1], parts[2])


def resource_of(url: str) -> str:
    """Return the plural name, and the subresource, of a URL path: `pods`, `pods/log`; empty for other paths."""
    parts = url.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]  # /api/v1/... and /apis/GROUP/VERSION/...
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return "/".join(parts[::2][:2])
