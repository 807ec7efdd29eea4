"""Errors of the gateway; those of its requests to the API server are in `trainyard_kube.errors`.

GatewayError
    SettingsError      an environment variable is missing or wrong; the process does not start
    Refusal            a request is not accepted; carries the HTTP status, reason and sentence of the answer
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
