"""Everything the gateway raises on purpose.

GatewayError
    SettingsError      an environment variable is missing or wrong; the process does not start
    Refusal            a request is not accepted; carries the HTTP status, reason and sentence of the answer
    ApiError           the Kubernetes API server did not do what was asked
        ApiRefusedError      it answered with an error status
        ApiUnreachableError  it did not answer
"""

from __future__ import annotations


class GatewayError(Exception):
    """Base of all errors of the gateway."""


class SettingsError(GatewayError):
    """An environment variable is missing or has a value that cannot be used."""


class Refusal(GatewayError):  # noqa: N818 - an answer to a request, not a fault
    """A request that is not accepted.

    Attributes:
        code: HTTP status of the answer.
        reason: Stable CamelCase word.
        message: What is wrong and what to do, for the person who reads the client's log.
        retry_after: Seconds after which the same request may succeed; None when it never will.
    """

    def __init__(self, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after


class ApiError(GatewayError):
    """The API server did not do what was asked."""


class ApiRefusedError(ApiError):
    """The API server answered with an error status.

    Attributes:
        code: The HTTP status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the API server answered {code}: {message}")
        self.code = code


class ApiUnreachableError(ApiError):
    """The API server did not answer in time, or the connection failed."""
