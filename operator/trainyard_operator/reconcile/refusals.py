"""What the API server's refusal of a child means: for good, or until something outside the object changes."""

from __future__ import annotations

from trainyard_kube.errors import (
    ApiRefusedError,
    BadRequestError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
)
from trainyard_operator.errors import ForeignObjectError
from trainyard_operator.reconcile.plan import Refusal

_REFUSALS = (InvalidError, ForbiddenError, BadRequestError, NotFoundError)
_WEBHOOK_DOWN = "failed calling webhook"
"""In the API server's answer (500) when a mandatory webhook does not answer."""


def is_webhook_down(error: ApiRefusedError) -> bool:
    """Return whether a request failed because a mandatory webhook does not answer."""
    return isinstance(error, ServerError) and _WEBHOOK_DOWN in error.message


def is_over_quota(error: ApiRefusedError) -> bool:
    """Return whether a ResourceQuota refused a request."""
    return isinstance(error, ForbiddenError) and not error.is_denial and "exceeded quota" in error.message


def is_refused(error: ApiRefusedError) -> bool:
    """Return whether a request was refused; otherwise it failed, and the same request may succeed at once."""
    return error.is_denial or is_webhook_down(error) or isinstance(error, _REFUSALS)


def refusal_of(kind: str, error: ApiRefusedError | ForeignObjectError) -> Refusal:
    """Return the refusal that an error means for a child of that kind.

    Only what the API server's own validation refuses is refused for good. A webhook or an admission policy may deny
    with any code, 422 included, and allow the same object later.

    Raises:
        ApiRefusedError: the request failed without being refused.
    """
    if isinstance(error, ForeignObjectError):
        return Refusal("NameTaken", str(error), final=False, child=kind)
    if not is_refused(error):
        raise error
    if is_webhook_down(error):
        text = f"The API server cannot create the {kind} now; the operator retries: {error.message}"
        return Refusal("WebhookUnavailable", text, final=False, transient=True, may_pass=True, child=kind)
    text = f"The API server refused the {kind}: {error.message}"
    if error.is_schema_violation:
        return Refusal("InvalidSpec", text, final=True, child=kind)
    quota = is_over_quota(error)
    may_pass = quota or error.is_denial
    return Refusal("QuotaExceeded" if quota else "CreateForbidden", text, final=False, may_pass=may_pass, child=kind)
