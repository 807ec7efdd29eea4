"""Jobs whose start Kueue decides: how a Job is held and released, and what follows for the phase."""

from __future__ import annotations

from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION, QUEUE_LABEL, is_active, is_held
from trainyard_operator.reconcile.fields import holds
from trainyard_operator.reconcile.plan import Patch
from trainyard_operator.trainingjob.k8s_fields import is_being_deleted, is_busy, job_finished, job_suspended
from trainyard_operator.trainingjob.kueue_adapter import (
    PRIORITY_LABEL,
    failure_message,
    is_deactivated,
    is_kueue_managed,
    labels,
    workload_reason,
)
from trainyard_operator.trainingjob.model import Decision, Observed
from trainyard_operator.trainingjob.policy_context import PolicyContext


def child_patches(observed: Observed, decision: Decision, admission: Admission) -> tuple[Patch, ...]:
    """Return the changes that hold or release the Job: of `spec.suspend`, or of its Workload under Kueue."""
    child = observed.child
    if child is None or job_finished(child) or is_being_deleted(child):
        return ()
    relabelled = _relabelled(observed, child, admission)
    if is_kueue_managed(child):
        return (*_activation(decision.suspend, admission), *_moved(child, admission), *relabelled)
    waits = decision.suspend is False and not admission.admitted
    return (*_suspension(child, None if waits else decision.suspend), *relabelled)


def refuse_local_queue(context: PolicyContext) -> Decision | None:
    """Fail a job that names a LocalQueue while the builtin queue is used; None for others."""
    name = context.spec.queue.name
    if name is None or context.admission.handoff is not None or context.child is not None:
        return None
    text = (
        f"spec.queue.name is '{name}', a LocalQueue of Kueue, but this installation uses its builtin queue. Leave "
        "spec.queue.name out, or ask the administrator to set the chart value queue.mode to Kueue."
    )
    return Decision(phase=Phase.FAILED, reason="InvalidSpec", message=text)


def follow_kueue_eviction(context: PolicyContext) -> Decision | None:
    """Report that Kueue stops a job, until its pods are gone; None for others."""
    child, handoff = context.child, context.admission.handoff
    if child is None or handoff is None or context.is_idle:
        return None
    workload = handoff.workload
    is_withdrawn = workload is not None and (holds(workload, "Evicted") or not is_active(workload))
    is_stopping = job_suspended(child) or is_withdrawn
    # A Job that was just created has no pods, though its status does not show that yet.
    has_pods = context.history.unfinished or is_busy(child)
    if not (is_stopping and has_pods):
        return None
    reason, message = (workload_reason(workload) if workload else None) or ("Saving", "Then it waits for its turn.")
    return Decision(phase=Phase.SUSPENDING, reason=reason, message=f"The job saves a checkpoint. {message}")


def fail_inadmissible(context: PolicyContext) -> Decision | None:
    """Fail a job whose Job Kueue will never start; None for others."""
    workload = context.admission.handoff.workload if context.admission.handoff else None
    cause = failure_message(workload) if workload else None
    if cause is None or context.child is None or not context.is_idle:
        return None
    text = (
        f"Kueue cannot start its Job: {cause} Create a TrainingJob whose spec.resources (nodeSelector, tolerations) "
        "match the ResourceFlavors of its queue."
    )
    return Decision(phase=Phase.FAILED, reason="FailedToStart", message=text)


def queue_remark(context: PolicyContext, decision: Decision) -> str:
    """Return a remark where `spec.queue.name`, or suspending the job, has no or a late effect; else empty."""
    child, handoff, name = context.child, context.admission.handoff, context.spec.queue.name
    if child is None or decision.phase is None or decision.phase in FINAL_PHASES:
        return ""
    if handoff is None and is_kueue_managed(child):
        return (
            " Its Job has Kueue's label queue-name, so only Kueue starts and stops it, and this installation uses its "
            "builtin queue: end this job with spec.stop: Force and create it again, or ask the administrator to set "
            "the chart value queue.mode to Kueue."
        )
    if handoff is None:
        return f" spec.queue.name '{name}' has no effect: this installation uses its builtin queue." if name else ""
    if remark := _suspension_remark(context, child, decision):
        return remark
    if name is not None and not job_suspended(child) and labels(child).get(QUEUE_LABEL) != name:
        return f" spec.queue.name '{name}' takes effect when the job waits the next time."
    return ""


def _suspension_remark(context: PolicyContext, child: Object, decision: Decision) -> str:
    """Return why suspending the job, or resuming it later, does not work; else empty."""
    handoff = context.admission.handoff
    if handoff is None or not decision.suspend or not is_kueue_managed(child):
        return ""
    if handoff.workload is None:
        is_missing = context.admission.decided and not job_suspended(child)
        text = " Kueue, which would stop its Job, has no Workload of it; spec.stop: Force ends it without saving."
        return text if is_missing else ""
    cause = workload_reason(handoff.workload) if is_deactivated(handoff.workload) else None
    return f" Resuming it takes more than spec.suspend: false. {cause[1]}" if cause else ""


def _suspension(child: Object, wanted: bool | None) -> tuple[Patch, ...]:
    """Return the change of the Job's `spec.suspend`, for the version that was observed."""
    if wanted is None or job_suspended(child) is wanted:
        return ()
    seen = {key: child["metadata"][key] for key in ("uid", "resourceVersion")}
    return (Patch("jobs", child["metadata"]["name"], {"metadata": seen, "spec": {"suspend": wanted}}, required=True),)


def _activation(hold: bool | None, admission: Admission) -> tuple[Patch, ...]:
    """Return the change of the Workload's `spec.active`; only one that the operator deactivated is activated again."""
    workload = admission.handoff.workload if admission.handoff else None
    if workload is None or hold is None:
        return ()
    if hold and is_active(workload):
        body: Object = {"metadata": {"annotations": {HELD_ANNOTATION: "true"}}, "spec": {"active": False}}
    elif not hold and is_held(workload):
        body = {"metadata": {"annotations": {HELD_ANNOTATION: None}}, "spec": {"active": True}}
    else:
        return ()
    return (Patch("workloads", workload["metadata"]["name"], body),)


def _relabelled(observed: Observed, child: Object, admission: Admission) -> tuple[Patch, ...]:
    """Return the changes of the labels that Kueue reads."""
    known, wanted = labels(child), _wanted_labels(observed, child, admission)
    changed = {key: value for key, value in wanted.items() if known.get(key) != value}
    if not changed:
        return ()
    name = child["metadata"]["name"]
    relabelled = Patch("jobs", name, {"metadata": {"labels": changed}})
    if QUEUE_LABEL not in changed or is_kueue_managed(child):
        return (relabelled,)
    # A suspended Job's template, which Kueue changes, is mutable only while the Job has no start time.
    return Patch("jobs/status", name, {"status": {"startTime": None}}), relabelled


def _wanted_labels(observed: Observed, child: Object, admission: Admission) -> dict[str, str]:
    """Return the labels for Kueue: the queue's only while the Job is suspended and is to continue."""
    wanted = dict(admission.handoff.labels) if admission.handoff else {}
    if not job_suspended(child):
        return {PRIORITY_LABEL: wanted[PRIORITY_LABEL]} if wanted and is_kueue_managed(child) else {}
    is_held_by_user = observed.spec.suspend or observed.spec.stop is not None
    return {} if is_held_by_user and not is_kueue_managed(child) else wanted


def _moved(child: Object, admission: Admission) -> tuple[Patch, ...]:
    """Return the change of the Workload's queue while it is evicted: Kueue ignores the Job's label until then."""
    workload = admission.handoff.workload if admission.handoff else None
    name = admission.handoff.labels.get(QUEUE_LABEL) if admission.handoff else None
    if workload is None or name is None or not job_suspended(child) or workload["spec"].get("queueName") == name:
        return ()
    waits = holds(workload, "Evicted") and not holds(workload, "QuotaReserved")
    return (Patch("workloads", workload["metadata"]["name"], {"spec": {"queueName": name}}),) if waits else ()
