"""Decides what to do about one TrainingJob: a pure function of what was observed, the settings and the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube.merge_patch import merge_patch
from trainyard_operator.admission.decision import Admission, admit_immediately
from trainyard_operator.reconcile.plan import Deletion, Need, Plan
from trainyard_operator.trainingjob.conditions import is_final
from trainyard_operator.trainingjob.k8s_fields import job_finished
from trainyard_operator.trainingjob.model import Decision, Observed, RenderSettings
from trainyard_operator.trainingjob.pods.attempts import history
from trainyard_operator.trainingjob.policies.kueue_handoff import change, remark
from trainyard_operator.trainingjob.policies.memory import memory_caution
from trainyard_operator.trainingjob.policies.post_run_exports import exporting
from trainyard_operator.trainingjob.policies.unreachable_node import silence
from trainyard_operator.trainingjob.policy_chain import decide
from trainyard_operator.trainingjob.policy_context import Case
from trainyard_operator.trainingjob.status import desired_status, note

Admit = Callable[[Observed], Admission]


def plan(observed: Observed, settings: RenderSettings, now: datetime, admit: Admit = admit_immediately) -> Plan:
    """What to create, patch, delete and write for one TrainingJob.

    The result depends on nothing else, so a plan that was applied in part is simply made again. A finished job is
    never started again, whatever becomes of its children.
    """
    if observed.is_being_deleted:
        return Plan()  # the garbage collector deletes the children
    if is_final(observed):
        return _after_the_end(observed, settings, now)
    past = history(observed, now)
    if isinstance(past, Need):
        return Plan(need=past)
    admission = admit(observed)
    decision = _decide(Case(observed=observed, history=past, settings=settings, now=now, admission=admission))
    if isinstance(decision, Need):
        return Plan(need=decision)
    if decision.phase is None:
        return Plan(create=decision.create, requeue_after=decision.requeue_after)
    patch = merge_patch(observed.status, desired_status(observed, decision, past, admission, now))
    ended = decision.phase in FINAL_PHASES
    return Plan(
        create=decision.create,
        patches=change(observed, decision, admission),
        delete=decision.delete,
        status=patch or None,
        note=note(observed, decision),
        # The step after the last one, which removes a child that could still start, is decided from the new status.
        requeue_after=0.0 if ended else decision.requeue_after,
    )


def _decide(case: Case) -> Decision | Need:
    """The decision, with what the user is to be warned of; or what to look up first."""
    decision = decide(case)
    if isinstance(decision, Need) or decision.phase is None:
        return decision
    caution = memory_caution(case.observed)
    if isinstance(caution, Need):
        return caution
    obstacle = silence(case.observed, case.observed.pods)
    blocked = case.observed.blocked
    late = f" {blocked}" if blocked and decision.phase not in FINAL_PHASES else ""
    message = decision.message + remark(case, decision) + late
    return replace(decision, caution=caution, obstacle=obstacle, message=message)


def _after_the_end(observed: Observed, settings: RenderSettings, now: datetime) -> Plan:
    """A child that has not come to its own end could run again: it goes. What was asked for since then is exported."""
    child = observed.child
    if child is not None and not job_finished(child) and "deletionTimestamp" not in child["metadata"]:
        return Plan(delete=(Deletion("jobs", child["metadata"]["name"], child["metadata"]["uid"]),))
    succeeded = observed.status.get("phase") == Phase.SUCCEEDED
    return exporting(observed, settings, now) if succeeded else Plan()
