"""Plans one TrainingJob: a pure function of what was observed, the settings and the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube.merge_patch import merge_patch
from trainyard_operator.admission.decision import Admission, admit_immediately
from trainyard_operator.reconcile.plan import Deletion, Need, Plan
from trainyard_operator.trainingjob.conditions import is_final
from trainyard_operator.trainingjob.k8s_fields import is_being_deleted, job_finished
from trainyard_operator.trainingjob.missing_job import repaired_labels, with_training_job
from trainyard_operator.trainingjob.model import Decision, Observed, RenderSettings
from trainyard_operator.trainingjob.pods.attempts import job_history
from trainyard_operator.trainingjob.policies.deletion import is_held_by_others
from trainyard_operator.trainingjob.policies.kueue_handoff import child_patches, queue_remark
from trainyard_operator.trainingjob.policies.memory import memory_caution
from trainyard_operator.trainingjob.policies.post_run_exports import plan_exports
from trainyard_operator.trainingjob.policies.retention import expire
from trainyard_operator.trainingjob.policies.unreachable_node import unreachable_node_message
from trainyard_operator.trainingjob.policy_chain import decide
from trainyard_operator.trainingjob.policy_context import PolicyContext
from trainyard_operator.trainingjob.status import desired_status, note

Admit = Callable[[Observed], Admission]


def plan(observed: Observed, settings: RenderSettings, now: datetime, admit: Admit = admit_immediately) -> Plan:
    """Return what to create, patch, delete and write for one TrainingJob.

    The plan depends on nothing else, so one that was carried out in part is simply made again. A finished job never
    starts again, whatever happens to its children.
    """
    if observed.is_being_deleted and (is_final(observed) or not is_held_by_others(observed)):
        return Plan()  # the garbage collector deletes the children
    if is_final(observed):
        return _plan_finished(observed, settings, now)
    found = with_training_job(observed)
    if isinstance(found, Need):
        return Plan(need=found)
    return _plan_unfinished(found, settings, now, admit)


def _plan_unfinished(observed: Observed, settings: RenderSettings, now: datetime, admit: Admit) -> Plan:
    history = job_history(observed, now)
    if isinstance(history, Need):
        return Plan(need=history)
    admission = admit(observed)
    context = PolicyContext(observed=observed, history=history, settings=settings, now=now, admission=admission)
    decision = _decide(context)
    if isinstance(decision, Need):
        return Plan(need=decision)
    repairs = repaired_labels(observed)
    if decision.phase is None:
        return Plan(create=decision.create, patches=repairs, requeue_after=decision.requeue_after)
    patch = merge_patch(observed.status, desired_status(observed, decision, history, admission, now))
    final = decision.phase in FINAL_PHASES
    return Plan(
        create=decision.create,
        patches=(*repairs, *child_patches(observed, decision, admission)),
        delete=decision.delete,
        status=patch or None,
        note=note(observed, decision),
        # A final status is followed by the deletion of a child that could still start: see _plan_finished.
        requeue_after=0.0 if final else decision.requeue_after,
    )


def _decide(context: PolicyContext) -> Decision | Need:
    """Return the decision with its warnings, or what to look up first."""
    decision = decide(context)
    if isinstance(decision, Need) or decision.phase is None:
        return decision
    observed = context.observed
    caution = memory_caution(observed)
    if isinstance(caution, Need):
        return caution
    message = decision.message + queue_remark(context, decision)
    if observed.blocked and decision.phase not in FINAL_PHASES:
        message += f" {observed.blocked}"
    obstacle = unreachable_node_message(observed, observed.pods)
    return replace(decision, caution=caution, obstacle=obstacle, message=message)


def _plan_finished(observed: Observed, settings: RenderSettings, now: datetime) -> Plan:
    """Delete a child that could start again, then make exports that were requested since; later delete the job."""
    child = observed.child
    if child is not None and not job_finished(child) and not is_being_deleted(child):
        return Plan(delete=(Deletion("jobs", child["metadata"]["name"], child["metadata"]["uid"]),))
    succeeded = observed.status.get("phase") == Phase.SUCCEEDED
    return expire(observed, settings, now, plan_exports(observed, settings, now) if succeeded else Plan())
