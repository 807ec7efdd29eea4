"""Deletes finished TrainingJobs after a time that the administrator sets; off by default."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from trainyard_operator.reconcile.fields import parse_time
from trainyard_operator.reconcile.plan import Deletion, Plan
from trainyard_operator.trainingjob.model import Observed, RenderSettings
from trainyard_operator.trainingjob.policies.post_run_exports import is_unfinished


def expire(observed: Observed, settings: RenderSettings, now: datetime, plan: Plan) -> Plan:
    """Return the plan of a finished TrainingJob with its deletion once it has been finished for long enough.

    Its children go with it; a claim goes with it only with `storage.retain: false`. An export that is still being made
    is awaited.

    Args:
        observed: The finished TrainingJob.
        settings: The operator's settings.
        now: The time.
        plan: What else there is to do for it.
    """
    finished = observed.status.get("completionTime")
    if settings.retention_seconds is None or finished is None or _is_busy(observed, plan):
        return plan
    left = settings.retention_seconds - (now - parse_time(finished)).total_seconds()
    if left > 0:
        return replace(plan, requeue_after=min(left, plan.requeue_after or left))
    return Plan(delete=(Deletion("trainingjobs", observed.name, observed.uid),))


def _is_busy(observed: Observed, plan: Plan) -> bool:
    changes = plan.need or plan.create or plan.apply or plan.patches or plan.delete or plan.status
    return bool(changes) or any(is_unfinished(entry) for entry in observed.status.get("exports") or [])
