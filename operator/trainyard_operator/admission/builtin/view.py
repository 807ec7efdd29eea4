"""The debug endpoint of the builtin queue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from trainyard_operator.admission.builtin.registry import QueuedJob
from trainyard_operator.queue.models import Request

Object = dict[str, Any]


def describe(jobs: list[QueuedJob]) -> Object:
    """Return the exact queue: waiting jobs in order, and jobs that hold GPUs."""
    waiting = [(job.entry.waiting, job) for job in jobs if job.entry.waiting]
    waiting.sort(key=lambda entry: entry[0].order)
    return {
        "waiting": [_row(job, request) | _reason(job) for request, job in waiting],
        "holding": [
            _row(job, job.entry.holding.request) | _reason(job) | {"leaving": job.entry.holding.releasing}
            for job in jobs
            if job.entry.holding
        ],
    }


def format_microseconds(moment: datetime) -> str:
    """Format an API timestamp with microseconds, which queue times and admission times need to be unique."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _row(job: QueuedJob, request: Request) -> Object:
    return {
        "namespace": job.key.namespace,
        "name": job.key.name,
        "pool": str(request.pool),
        "gpus": request.gpus,
        "nodes": request.nodes,
        "priority": request.priority,
        "enqueuedAt": format_microseconds(job.enqueued_at),
    }


def _reason(job: QueuedJob) -> Object:
    return {"reason": job.published.reason.code, "message": job.published.reason.message} if job.published else {}
