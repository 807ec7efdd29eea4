"""Server-side apply only where something changed: a child records the hash of what was applied."""

from __future__ import annotations

import json
from hashlib import sha256

from trainyard_crds.common import GROUP
from trainyard_kube.paths import Object

APPLIED_ANNOTATION = f"{GROUP}/applied"
"""Hash of the body that was applied last; the informer must keep it."""


def stamped(body: Object) -> Object:
    """Return a body with the hash of its content."""
    digest = sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    annotations = {**(body["metadata"].get("annotations") or {}), APPLIED_ANNOTATION: digest}
    return {**body, "metadata": {**body["metadata"], "annotations": annotations}}


def is_applied(known: Object | None, body: Object) -> bool:
    """Return whether a child is what a stamped body describes, as far as the operator applied it."""
    annotations = ((known or {}).get("metadata") or {}).get("annotations") or {}
    return bool(annotations.get(APPLIED_ANNOTATION) == body["metadata"]["annotations"][APPLIED_ANNOTATION])
