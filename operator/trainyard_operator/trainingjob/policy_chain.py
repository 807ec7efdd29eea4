"""Decides the phase of an unfinished job: the policies in the order in which they apply.

A finished training Job comes first, so that a job that completed before a stop or suspension reached it has succeeded.
Then what ends a job for good, then suspension, then the start and the run.
"""

from __future__ import annotations

from collections.abc import Callable

from trainyard_crds.exitcodes import OnExit
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.k8s_fields import job_finished, job_suspended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import complete, succeeded
from trainyard_operator.trainingjob.policies.deadlines import enforce_limits
from trainyard_operator.trainingjob.policies.deleted_job import end_without_job
from trainyard_operator.trainingjob.policies.deletion import end_deleted
from trainyard_operator.trainingjob.policies.foreign_suspension import follow_foreign_suspension
from trainyard_operator.trainingjob.policies.gang_restart import restart_gang
from trainyard_operator.trainingjob.policies.kueue_handoff import (
    fail_inadmissible,
    follow_kueue_eviction,
    refuse_local_queue,
)
from trainyard_operator.trainingjob.policies.namespace_termination import end_with_namespace
from trainyard_operator.trainingjob.policies.restoring import restore
from trainyard_operator.trainingjob.policies.retry_limit import enforce_retry_limit
from trainyard_operator.trainingjob.policies.sidecars import end_with_trainer
from trainyard_operator.trainingjob.policies.start_timeout import time_out_start
from trainyard_operator.trainingjob.policies.starting import start_or_run
from trainyard_operator.trainingjob.policies.stopping import stop, suspend, yield_gpus
from trainyard_operator.trainingjob.policy_context import PolicyContext


def decide(context: PolicyContext) -> Decision | Need:
    """Return the decision of the first policy that applies, or what to look up first."""
    for policy in _POLICIES:
        decision = policy(context)
        if decision is not None:
            return decision
    return start_or_run(context)


def _succeed_while_stopping(context: PolicyContext) -> Decision | None:
    """Succeed when the trainer finished after its Job was suspended: the Job controller does not count such a pod."""
    held = context.child is None or job_suspended(context.child)
    end = context.history.ending
    if held and not context.history.unfinished and end is not None and end.finished:
        return succeeded(end.termination)
    return None


def _await_verdict(context: PolicyContext) -> Decision | None:
    """Wait while the Job controller is about to end the Job because of its last pod, which takes seconds."""
    child, end = context.child, context.history.verdict
    if child is None or job_suspended(child) or context.spec.suspend:
        return None
    if context.history.cause_in is not None:
        return Decision(phase=None, requeue_after=context.history.cause_in)
    if end is None:
        return None
    failed = context.history.counts.failed
    exhausted = end.action is OnExit.COUNT and failed > child["spec"].get("backoffLimit", 0)
    decisive = end.action in (OnExit.COMPLETE, OnExit.FAIL)
    return Decision(phase=None) if exhausted or decisive else None


def _complete_finished(context: PolicyContext) -> Decision | Need | None:
    finished = context.child is not None and job_finished(context.child)
    return complete(context) if finished else None


_Policy = Callable[[PolicyContext], Decision | Need | None]
_POLICIES: tuple[_Policy, ...] = (
    end_deleted,
    _complete_finished,
    _succeed_while_stopping,
    end_with_namespace,
    restore,
    stop,
    end_without_job,
    enforce_retry_limit,
    end_with_trainer,
    _await_verdict,
    enforce_limits,
    refuse_local_queue,
    suspend,
    follow_foreign_suspension,
    restart_gang,
    time_out_start,
    follow_kueue_eviction,
    fail_inadmissible,
    yield_gpus,
)
