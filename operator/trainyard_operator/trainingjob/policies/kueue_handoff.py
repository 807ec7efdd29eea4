"""Jobs whose start Kueue decides: who holds what, and what follows for the phase."""

from __future__ import annotations

from trainyard_crds.trainingjob_status import FINAL_PHASES, Phase
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION, is_active, is_held
from trainyard_operator.reconcile.fields import holds
from trainyard_operator.reconcile.plan import Patch
from trainyard_operator.trainingjob.k8s_fields import job_finished, job_suspended
from trainyard_operator.trainingjob.kueue_adapter import (
    PRIORITY_LABEL,
    QUEUE_LABEL,
    gave_up,
    is_barred,
    is_handed_over,
    labels,
    reading,
)
from trainyard_operator.trainingjob.model import Decision, Observed
from trainyard_operator.trainingjob.policy_context import Case


def change(observed: Observed, decision: Decision, admission: Admission) -> tuple[Patch, ...]:
    """Hold or release the child where it is held: its `spec.suspend`, or under Kueue its Workload's `spec.active`."""
    child = observed.child
    if child is None or job_finished(child) or "deletionTimestamp" in child["metadata"]:
        return ()
    relabelled = _relabelled(observed, child, admission)
    if is_handed_over(child):
        return (*_activation(decision.suspend, admission), *_moved(child, admission), *relabelled)
    waits = decision.suspend is False and not admission.admitted
    wanted = None if waits else decision.suspend
    return (*_suspension(child, wanted), *relabelled)


def _suspension(child: Object, wanted: bool | None) -> tuple[Patch, ...]:
    """Return the change of the Job's `spec.suspend`, of the version that was observed."""
    if wanted is None or job_suspended(child) is wanted:
        return ()
    seen = {key: child["metadata"][key] for key in ("uid", "resourceVersion")}
    return (Patch("jobs", child["metadata"]["name"], {"metadata": seen, "spec": {"suspend": wanted}}, required=True),)


def misplaced(case: Case) -> Decision | None:
    """The refusal of a job that names a LocalQueue where Kueue is not asked; None when it does not."""
    name = _name(case)
    if name is None or case.admission.handoff is not None or case.child is not None:
        return None
    text = (
        f"spec.queue.name is '{name}', a LocalQueue of Kueue, but this installation uses its builtin queue. Leave "
        "spec.queue.name out, or ask the administrator to set the chart value queue.mode to Kueue."
    )
    return Decision(phase=Phase.FAILED, reason="InvalidSpec", message=text)


def make_way(case: Case) -> Decision | None:
    """What is said of a job that Kueue stops, until its pods are gone; None while it does not."""
    child, handoff = case.child, case.admission.handoff
    if child is None or handoff is None or case.idle:
        return None
    workload = handoff.workload
    taken = workload is not None and (holds(workload, "Evicted") or not is_active(workload))
    if not (job_suspended(child) or taken) or not _busy(case, child):
        return None
    reason, message = (reading(workload) if workload else None) or ("Saving", "Then it waits for its turn.")
    return Decision(phase=Phase.SUSPENDING, reason=reason, message=f"The job saves a checkpoint. {message}")


def given_up(case: Case) -> Decision | None:
    """The failure of a job whose Job Kueue will never start; None for others."""
    workload = case.admission.handoff.workload if case.admission.handoff else None
    cause = gave_up(workload) if workload else None
    if cause is None or case.child is None or not case.idle:
        return None
    text = (
        f"Kueue cannot start its Job: {cause} Create a TrainingJob whose spec.resources (nodeSelector, tolerations) "
        "agree with the ResourceFlavors of its queue."
    )
    return Decision(phase=Phase.FAILED, reason="FailedToStart", message=text)


def remark(case: Case, decision: Decision) -> str:
    """What a user should know where `spec.queue.name`, or holding a job back, does not do what it says; else empty."""
    child, handoff, name = case.child, case.admission.handoff, _name(case)
    if child is None or decision.phase is None or decision.phase in FINAL_PHASES:
        return ""
    if handoff is None and is_handed_over(child):
        return (
            " Its Job has Kueue's label queue-name, so only Kueue starts and stops it, and this installation uses its "
            "builtin queue: end this job with spec.stop: Force and create it again, or ask the administrator to set "
            "the chart value queue.mode to Kueue."
        )
    if handoff is None:
        return f" spec.queue.name '{name}' has no effect: this installation uses its builtin queue." if name else ""
    if hindered := _hindered(case, child, decision):
        return hindered
    if name is not None and not job_suspended(child) and labels(child).get(QUEUE_LABEL) != name:
        return f" spec.queue.name '{name}' takes effect when the job waits the next time."
    return ""


def _hindered(case: Case, child: Object, decision: Decision) -> str:
    """What stands against holding a job back, or against letting it go on later; else empty."""
    handoff = case.admission.handoff
    if handoff is None or not decision.suspend or not is_handed_over(child):
        return ""
    if handoff.workload is None:
        missing = case.admission.decided and not job_suspended(child)
        text = " Kueue, which would stop its Job, has no Workload of it; spec.stop: Force ends it without saving."
        return text if missing else ""
    told = reading(handoff.workload) if is_barred(handoff.workload) else None
    return f" A resume alone will not do. {told[1]}" if told else ""


def _name(case: Case) -> str | None:
    return case.spec.queue.name


def _busy(case: Case, child: Object) -> bool:
    """Whether a pod may still be there; a Job that was just made has none, though nobody said so yet."""
    status = child.get("status") or {}
    return case.history.unfinished or bool(status.get("active") or status.get("terminating"))


def _activation(hold: bool | None, admission: Admission) -> tuple[Patch, ...]:
    """The change of a Workload's `spec.active`; only what was deactivated by us is activated again."""
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
    """The labels that Kueue is to read from now on: the queue's only while the Job is suspended."""
    wanted = dict(admission.handoff.labels) if admission.handoff else {}
    if not job_suspended(child):
        wanted = {PRIORITY_LABEL: wanted[PRIORITY_LABEL]} if wanted and is_handed_over(child) else {}
    elif not is_handed_over(child) and _waits_for_user(observed):
        wanted = {}
    known = labels(child)
    news = {key: value for key, value in wanted.items() if known.get(key) != value}
    if not news:
        return ()
    name = child["metadata"]["name"]
    labelled = Patch("jobs", name, {"metadata": {"labels": news}})
    if QUEUE_LABEL not in news or is_handed_over(child):
        return (labelled,)
    # A suspended Job's template, which Kueue writes to, is open to changes only where no start time says that it ran.
    return Patch("jobs/status", name, {"status": {"startTime": None}}), labelled


def _moved(child: Object, admission: Admission) -> tuple[Patch, ...]:
    """The Workload's queue where Kueue does not follow the Job's label: as long as it says that it evicted it."""
    workload = admission.handoff.workload if admission.handoff else None
    name = admission.handoff.labels.get(QUEUE_LABEL) if admission.handoff else None
    if workload is None or name is None or not job_suspended(child) or workload["spec"].get("queueName") == name:
        return ()
    waits = holds(workload, "Evicted") and not holds(workload, "QuotaReserved")
    return (Patch("workloads", workload["metadata"]["name"], {"spec": {"queueName": name}}),) if waits else ()


def _waits_for_user(observed: Observed) -> bool:
    return observed.spec.suspend or observed.spec.stop is not None
