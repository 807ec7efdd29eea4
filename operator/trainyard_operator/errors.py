"""Everything that goes wrong in a way the operator knows.

OperatorError
  SettingsError          the environment configures something that cannot work
  ClusterNotReadyError   the cluster lacks what the operator needs (the CRD)
  LeadershipLostError    another process leads now, or may: this one must end
  ForeignObjectError     an object of the name we need belongs to somebody else
  ApiError               a request to the API server failed
    ApiRefusedError      it answered with an error status
      BadRequestError    400
      ForbiddenError     403
      NotFoundError      404
      ConflictError      409: already exists, or changed since it was read
      InvalidError       422
      ThrottledError     429: too many requests
      ServerError        5xx
    ApiUnreachableError  no answer, or none in time; whether it took effect is unknown
"""

from __future__ import annotations

from collections.abc import Sequence


class OperatorError(Exception):
    """Base of all."""


class SettingsError(OperatorError):
    """Names the variable, its value and what is expected."""


class ClusterNotReadyError(OperatorError):
    """Names what is missing and how to get it."""


class LeadershipLostError(OperatorError):
    """Says why leadership ended."""


class ForeignObjectError(OperatorError):
    """Names the object that is in the way."""


class ApiError(OperatorError):
    """A request to the API server failed."""


class ApiUnreachableError(ApiError):
    """No answer, or none in time."""


class ApiRefusedError(ApiError):
    """The API server answered with an error.

    Attributes:
        code: HTTP status.
        reason: The answer's CamelCase reason, for example AlreadyExists; empty when it has none.
        message: The answer's sentence.
        causes: The CamelCase reasons of its details, for example NamespaceTerminating.
    """

    def __init__(self, code: int, reason: str, message: str, causes: Sequence[str] = ()) -> None:
        super().__init__(f"{code} {reason}: {message}" if reason else f"{code}: {message}")
        self.code, self.reason, self.message, self.causes = code, reason, message, tuple(causes)


class BadRequestError(ApiRefusedError):
    """400."""


class ForbiddenError(ApiRefusedError):
    """403."""


class NotFoundError(ApiRefusedError):
    """404."""


class ConflictError(ApiRefusedError):
    """409."""


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
    422: InvalidError,
    429: ThrottledError,
}


def refused(code: int, reason: str, message: str, causes: Sequence[str] = ()) -> ApiRefusedError:
    """The error of an HTTP status."""
    kind = ServerError if code >= 500 else _BY_CODE.get(code, ApiRefusedError)
    return kind(code, reason, message, causes)
