"""Client of the gateway's intake: posts reports in a background thread and never blocks training."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from trainyard_crds.report import Report
from trainyard_crds.runconfig import Intake
from trainyard_trainer.clock import Clock
from trainyard_trainer.report.run_log import RunLog

_INTERVAL_SECONDS = 2.0
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 5.0
_TIMEOUT_SECONDS = 5.0
FLUSH_SECONDS = 5.0
"""Longest wait for the last report at the end of a run."""


class PostError(NamedTuple):
    """Why a report was rejected or could not be sent."""

    kind: str
    """Errors of one kind are logged once."""
    message: str


Send = Callable[[bytes], PostError | None]
"""Posts a body; returns None if it was accepted."""


def seconds_until_next(*, since_last: float, failures: int, urgent: bool) -> float:
    """Return the wait before the next post.

    Args:
        since_last: Seconds since the last attempt.
        failures: Consecutive failed attempts; each doubles the backoff.
        urgent: Whether the report is sent without waiting for the interval.
    """
    if failures > 0:
        wait = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** (failures - 1))
    else:
        wait = 0.0 if urgent else _INTERVAL_SECONDS
    return max(0.0, wait - since_last)


class GatewayClient:
    """Posts the latest report until it is accepted; older reports are dropped."""

    def __init__(self, *, send: Send, clock: Clock, run_log: RunLog) -> None:
        self._send = send
        self._clock = clock
        self._run_log = run_log
        self._changed = threading.Condition()
        self._latest: Report | None = None
        self._urgent = False
        self._deadline: float | None = None
        self._last_attempt_at = float("-inf")
        self._failures = 0
        self._logged_kinds: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, report: Report, *, urgent: bool = False) -> None:
        """Replace the report to be posted and return at once.

        Args:
            report: The latest report.
            urgent: Whether to send it without waiting for the interval, as after a change of the stage.
        """
        with self._changed:
            self._latest = report
            self._urgent = self._urgent or urgent
            self._changed.notify()

    def close(self) -> None:
        """Flush the last report for at most FLUSH_SECONDS, then stop the thread."""
        with self._changed:
            self._deadline = self._clock.monotonic() + FLUSH_SECONDS
            self._urgent = True
            self._changed.notify()
        self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        while (report := self._next()) is not None:
            error = self._send(report.model_dump_json(by_alias=True, exclude_none=True).encode())
            with self._changed:
                self._last_attempt_at = self._clock.monotonic()
                self._failures = 0 if error is None else self._failures + 1
                if error is not None and self._latest is None:
                    self._latest = report
            if error is not None:
                self._log_once(error)

    def _log_once(self, error: PostError) -> None:
        if error.kind not in self._logged_kinds:
            self._logged_kinds.add(error.kind)
            text = f"{error.message} Training continues; the report is retried."
            self._run_log.append(level="warning", kind="ProgressNotReported", message=text)

    def _next(self) -> Report | None:
        """Wait until a report is due and return it; None once the client is closed."""
        with self._changed:
            while True:
                now = self._clock.monotonic()
                if self._deadline is not None and (self._latest is None or now >= self._deadline):
                    return None
                since_last = now - self._last_attempt_at
                wait = seconds_until_next(since_last=since_last, failures=self._failures, urgent=self._urgent)
                if self._latest is not None and wait <= 0:
                    report, self._latest, self._urgent = self._latest, None, self._deadline is not None
                    return report
                self._changed.wait(wait if self._latest is not None else None)


def create_sender(intake: Intake) -> Send:
    """Return a sender that opens a new connection per report, to pick up rotated tokens and certificates."""

    def send(body: bytes) -> PostError | None:
        try:
            status, reason = _post(intake, body)
        except (OSError, http.client.HTTPException) as error:
            return PostError("unreachable", f"The progress intake {intake.url} is unreachable ({error}).")
        if status < 300:
            return None
        return PostError(f"HTTP {status}", f"The progress intake rejected a report with HTTP {status}: {reason}")

    return send


def _post(intake: Intake, body: bytes) -> tuple[int, str]:
    connection = _connect(intake)
    try:
        url = urlsplit(intake.url)
        token = Path(intake.token_file).read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", f"{url.path}?{url.query}" if url.query else url.path, body, headers)
        response = connection.getresponse()
        return response.status, response.read(512).decode(errors="replace").strip()
    finally:
        connection.close()


def _connect(intake: Intake) -> http.client.HTTPConnection:
    url = urlsplit(intake.url)
    host = url.hostname or ""
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=intake.ca_file)
        return http.client.HTTPSConnection(host, url.port, timeout=_TIMEOUT_SECONDS, context=context)
    return http.client.HTTPConnection(host, url.port, timeout=_TIMEOUT_SECONDS)
