"""Posts reports to the gateway from a thread of its own. Training never waits for it, and goes on without it."""

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
"""Longest that the end of a run waits for the last report."""


class Problem(NamedTuple):
    """Why a report was refused or lost."""

    kind: str
    """The same for all problems that need not be told twice."""
    message: str


Send = Callable[[bytes], Problem | None]
"""Posts a body; None when it was taken."""


def seconds_until_next(*, since_last: float, failures: int, urgent: bool) -> float:
    """How long to wait before the next post.

    Args:
        since_last: Seconds since the last post was tried.
        failures: Posts that failed in a row; the wait doubles with each.
        urgent: Whether the report should not wait for its turn.
    """
    if failures > 0:
        wait = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** (failures - 1))
    else:
        wait = 0.0 if urgent else _INTERVAL_SECONDS
    return max(0.0, wait - since_last)


class GatewayClient:
    """Keeps the latest report until it is taken; older ones are forgotten."""

    def __init__(self, *, send: Send, clock: Clock, run_log: RunLog) -> None:
        self._send = send
        self._clock = clock
        self._run_log = run_log
        self._changed = threading.Condition()
        self._latest: Report | None = None
        self._urgent = False
        self._deadline: float | None = None
        self._tried_at = float("-inf")
        self._failures = 0
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start posting."""
        self._thread.start()

    def offer(self, report: Report, *, urgent: bool = False) -> None:
        """Replace the report to be posted; returns at once.

        Args:
            report: The newest report.
            urgent: Whether it should not wait for its turn: what the run does has changed.
        """
        with self._changed:
            self._latest = report
            self._urgent = self._urgent or urgent
            self._changed.notify()

    def close(self) -> None:
        """Give the last report some seconds to be taken, then stop posting."""
        with self._changed:
            self._deadline = self._clock.monotonic() + FLUSH_SECONDS
            self._urgent = True
            self._changed.notify()
        self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        while (report := self._next()) is not None:
            problem = self._send(report.model_dump_json(by_alias=True, exclude_none=True).encode())
            with self._changed:
                self._tried_at = self._clock.monotonic()
                self._failures = 0 if problem is None else self._failures + 1
                if problem is not None and self._latest is None:
                    self._latest = report
            if problem is not None and problem.kind not in self._told:
                self._told.add(problem.kind)
                text = f"{problem.message} Training goes on; reporting is tried again."
                self._run_log.append(level="warning", kind="ProgressNotReported", message=text)

    def _next(self) -> Report | None:
        """Wait for a report whose turn has come; None when posting is over."""
        with self._changed:
            while True:
                now = self._clock.monotonic()
                if self._deadline is not None and (self._latest is None or now >= self._deadline):
                    return None
                wait = seconds_until_next(since_last=now - self._tried_at, failures=self._failures, urgent=self._urgent)
                if self._latest is not None and wait <= 0:
                    report, self._latest, self._urgent = self._latest, None, self._deadline is not None
                    return report
                self._changed.wait(wait if self._latest is not None else None)


def create_sender(intake: Intake) -> Send:
    """Posts to the gateway's intake over a fresh connection, so that rotated tokens and certificates are picked up."""

    def send(body: bytes) -> Problem | None:
        try:
            status, reason = _post(intake, body)
        except (OSError, http.client.HTTPException) as error:
            return Problem("unreachable", f"The progress intake {intake.url} cannot be reached ({error}).")
        if status < 300:
            return None
        return Problem(f"HTTP {status}", f"The progress intake refused a report with HTTP {status}: {reason}")

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
