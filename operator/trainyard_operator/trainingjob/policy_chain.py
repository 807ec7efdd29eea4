"""One phase for one job: the policies in the order in which they decide.

A finished training Job comes first, so that a job that was done before a stop or suspension reached it has succeeded.
Then what ends a job for good, then suspension, then the start and the run.
"""

from __future__ import annotations

from collections.abc import Callable

from trainyard_crds.exitcodes import OnExit
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.trainingjob.k8s_fields import job_finished, job_suspended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import outcome, succeeded
from trainyard_operator.trainingjob.policies.deadlines import limits
from trainyard_operator.trainingjob.policies.gang_restart import regroup, retries_used_up
from trainyard_operator.trainingjob.policies.kueue_handoff import given_up, make_way, misplaced
from trainyard_operator.trainingjob.policies.namespace_termination import leave
from trainyard_operator.trainingjob.policies.start_timeout import give_back
from trainyard_operator.trainingjob.policies.starting import start_or_run
from trainyard_operator.trainingjob.policies.stopping import make_room, stop, suspend
from trainyard_operator.trainingjob.policy_context import Case


def decide(case: Case) -> Decision | Need:
    """What an unfinished job's phase is and what is to be done for it; or what to look up first."""
    for policy in _POLICIES:
        decision = policy(case)
        if decision is not None:
            return decision
    return start_or_run(case)


def _finished(case: Case) -> Decision | Need | None:
    finished = case.child is not None and job_finished(case.child)
    return outcome(case.observed, case.history, case.settings) if finished else None


def _done_while_stopping(case: Case) -> Decision | None:
    """A pod that finished after its Job was suspended is neither a success nor a failure to the Job controller."""
    stopped = case.child is None or job_suspended(case.child)
    end = case.history.ending
    if stopped and not case.history.unfinished and end is not None and end.finished:
        return succeeded(end.termination)
    return None


def _verdict_is_near(case: Case) -> Decision | None:
    """The last pod's end decides the Job's, which its controller writes within seconds: wait for it."""
    child, end = case.child, case.history.verdict
    if child is None or job_suspended(child) or case.spec.suspend:
        return None
    if case.history.cause_in is not None:
        return Decision(phase=None, requeue_after=case.history.cause_in)
    if end is None:
        return None
    exhausted = end.action is OnExit.COUNT and case.history.counts.failed > child["spec"].get("backoffLimit", 0)
    near = exhausted or end.action in (OnExit.COMPLETE, OnExit.FAIL)
    return Decision(phase=None) if near else None


_Policy = Callable[[Case], Decision | Need | None]
_POLICIES: tuple[_Policy, ...] = (
    _finished,
    _done_while_stopping,
    leave,
    stop,
    _verdict_is_near,
    retries_used_up,
    limits,
    misplaced,
    suspend,
    regroup,
    give_back,
    make_way,
    given_up,
    make_room,
)
