"""The intake's rejection of a report."""

from __future__ import annotations

from trainyard_gateway.errors import GatewayError


class ReportRejectedError(GatewayError):
    """A report is rejected.

    Attributes:
        code: HTTP status of the response.
        reason: Stable CamelCase reason.
        message: What is wrong and what to do, for the reader of the client's log.
        retry_after: Seconds after which the same request may succeed; None if it never will.
    """

    def __init__(self, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after
