"""Errors of the access to an API server.

KubeError
  ConfigurationError     neither a kubeconfig file nor a service account can be used
  LeadershipLostError    another process may lead now; this one must end
  ApiError               a request to the API server failed
    ApiRefusedError      the API server answered with an error status
      BadRequestError    400
      ForbiddenError     403
      NotFoundError      404
      ConflictError      409: the object exists already, or changed since it was read
      GoneError          410: the resource version of a watch is too old
      InvalidError       422
      ThrottledError     429: too many requests
      ServerError        5xx
    ApiUnreachableError  no answer, or none in time; whether the request took effect is unknown
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_DENIED = re.compile(
    r"""admission webhook "[^"]*" denied the request|"""
    r"""(\S+ "[^"]*" is forbidden: )?\w+AdmissionPolicy '[^']*' (with binding '[^']*' )?denied request"""
)
"""How the API server begins the message of a denial by a webhook or an admission policy, whatever its code."""
_SCHEMA_CAUSE = re.compile(r"FieldValue\w+")


class KubeError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(KubeError):
    """Neither a kubeconfig file nor a service account can be used."""


class LeadershipLostError(KubeError):
    """Another process leads, or may lead."""


class ApiError(KubeError):
    """A request to the API server failed."""


class ApiUnreachableError(ApiError):
    """No answer, or none in time."""


class ApiRefusedError(ApiError):
    """The API server answered with an error status.

    Attributes:
        code: HTTP status.
        reason: CamelCase reason of the answer, for example AlreadyExists; empty if it has none.
        message: Message of the answer.
        causes: CamelCase reasons of its details, for example NamespaceTerminating.
    """

    def __init__(self, code: int, reason: str, message: str, causes: Sequence[str] = ()) -> None:
        super().__init__(f"{code} {reason}: {message}" if reason else f"{code}: {message}")
        self.code, self.reason, self.message, self.causes = code, reason, message, tuple(causes)

    @property
    def is_denial(self) -> bool:
        """Whether a webhook or an admission policy denied the request; it may choose any code and reason."""
        return _DENIED.match(self.message) is not None

    @property
    def is_schema_violation(self) -> bool:
        """Whether the API server's own validation refused the object: each cause then has a reason about a field."""
        is_about_fields = bool(self.causes) and all(_SCHEMA_CAUSE.fullmatch(cause) for cause in self.causes)
        return isinstance(self, InvalidError) and is_about_fields and not self.is_denial


class BadRequestError(ApiRefusedError):
    """400."""


class ForbiddenError(ApiRefusedError):
    """403."""


class NotFoundError(ApiRefusedError):
    """404."""


class ConflictError(ApiRefusedError):
    """409."""


class GoneError(ApiRefusedError):
    """410."""


class InvalidError(ApiRefusedError):
    """422."""


class ThrottledError(ApiRefusedError):
    """429."""


class ServerError(ApiRefusedError):
    """5xx."""


_BY_CODE = {
    400: BadRequestError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: ThrottledError,
}


def status_error(code: int, reason: str, message: str, causes: Sequence[str] = ()) -> ApiRefusedError:
    """Return the error of an HTTP status."""
    kind = ServerError if code >= 500 else _BY_CODE.get(code, ApiRefusedError)
    return kind(code, reason, message, causes)


def answer_error(code: int, content: bytes) -> ApiRefusedError:
    """Return the error of an HTTP answer: with the fields of its Status, or with the text itself if it is no Status."""
    try:
        status = json.loads(content)
        causes = (status.get("details") or {}).get("causes") or []
        reasons = [str(cause.get("reason")) for cause in causes]
        return status_error(code, str(status.get("reason", "")), str(status["message"]), reasons)
    except (ValueError, KeyError, TypeError, AttributeError):
        return status_error(code, "", content[:300].decode(errors="replace"))
