"""Exports that a finished run lacks: each by its own Job, one at a time, reported in `status.exports`.

Making an export again is harmless (the trainer keeps a complete one), so that entry is the only state. The operator
creates a Job again if it was deleted or its result was not observed. The phase and its conditions never change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from trainyard_crds.exitcodes import OnExit
from trainyard_crds.exports import Export
from trainyard_crds.report import ExportState, ExportStatus
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, holds, owned_by, parse_time
from trainyard_operator.reconcile.plan import Deletion, Need, Note, Patch, Plan
from trainyard_operator.trainingjob.children.render import export_job, export_name
from trainyard_operator.trainingjob.k8s_fields import (
    is_being_deleted,
    is_running,
    job_suspended,
    pod_ended,
    terminated,
)
from trainyard_operator.trainingjob.model import Observed, RenderSettings
from trainyard_operator.trainingjob.pods.attempts import container_memory
from trainyard_operator.trainingjob.pods.current_pods import current_pods
from trainyard_operator.trainingjob.pods.pod_termination import Ending, pod_ending
from trainyard_operator.trainingjob.policies.deadlines import start_deadline_message
from trainyard_operator.trainingjob.policies.pending_reason import NO_POD_SECONDS, no_pod, pod_pending_reason, starting
from trainyard_operator.trainingjob.policies.unreachable_node import unreachable_node_message
from trainyard_operator.trainingjob.spec import InvalidSpecError

_MESSAGE_LIMIT = 1024
_UNFINISHED = (ExportState.PENDING, ExportState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """State of one export.

    Attributes:
        entry: Its entry in `status.exports`.
        create, patches, delete: What is to be done for it.
        requeue_after: Seconds until the passing of time changes its entry.
    """

    entry: Object
    create: tuple[Object, ...] = ()
    patches: tuple[Patch, ...] = ()
    delete: tuple[Deletion, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One entry of `spec.exports` and its state in the status."""

    observed: Observed
    settings: RenderSettings
    now: datetime
    wanted: Export
    known: Object | None

    @property
    def name(self) -> str:
        """Name of its Job."""
        return export_name(self.observed.name, self.observed.uid, self.wanted.format)

    @property
    def job(self) -> Object | None:
        """Its Job."""
        return next((job for job in self.observed.export_jobs if job["metadata"]["name"] == self.name), None)

    @property
    def is_made(self) -> bool:
        """Whether it is complete, with the copy that the spec wants."""
        known = self.known
        if known is None or known.get("state", ExportState.SUCCEEDED) != ExportState.SUCCEEDED:
            return False
        return known.get("destination") == self.wanted.destination

    def entry(self, state: ExportState, reason: str | None = None, message: str | None = None) -> Object:
        """Return its entry in the status."""
        texts = {"reason": reason, "message": message and message[:_MESSAGE_LIMIT]}
        kept = {key: value for key, value in texts.items() if value}
        return {"format": self.wanted.format, "state": state.value, "jobName": self.name, **kept}


def plan_exports(observed: Observed, settings: RenderSettings, now: datetime) -> Plan:
    """Plan the exports of a job that succeeded, in the order of `spec.exports`."""
    before = {entry["format"]: entry for entry in observed.status.get("exports") or []}
    after, steps = dict(before), list[_Step]()
    for wanted in observed.spec.exports or []:
        known = before.get(wanted.format)
        request = _Request(observed=observed, settings=settings, now=now, wanted=wanted, known=known)
        if request.is_made:
            continue
        step = _step(request, behind=any(is_unfinished(step.entry) for step in steps))
        if isinstance(step, Need):
            return Plan(need=step)
        after[wanted.format] = step.entry
        steps.append(step)
    return _combined(observed, before, list(after.values()), steps)


def is_unfinished(entry: Object) -> bool:
    """Return whether an entry of `status.exports` is pending or running."""
    return entry.get("state") in _UNFINISHED


def _combined(observed: Observed, before: dict[str, Object], entries: list[Object], steps: list[_Step]) -> Plan:
    unchanged = entries == list(before.values())
    return Plan(
        create=tuple(body for step in steps for body in step.create),
        patches=tuple(patch for step in steps for patch in step.patches),
        delete=tuple(deletion for step in steps for deletion in step.delete),
        status=None if unchanged else _status(observed, entries),
        note=_note(before, entries),
        requeue_after=min((step.requeue_after for step in steps if step.requeue_after is not None), default=None),
    )


def _status(observed: Observed, entries: list[Object]) -> Object:
    generation = observed.job["metadata"].get("generation")
    known = observed.status.get("observedGeneration")
    return {"exports": entries} | ({} if generation == known else {"observedGeneration": generation})


def _step(request: _Request, *, behind: bool) -> _Step | Need:
    job = request.job
    if job is None:
        return _Step(entry=_behind(request)) if behind else _start(request)
    if is_being_deleted(job):
        text = f"The Job {request.name} is being deleted; the export is made by a new one."
        return _Step(entry=request.entry(ExportState.PENDING, "JobDeleted", text))
    own = (pod for pod in request.observed.export_pods if owned_by(pod, job["metadata"]["uid"]))
    pods = current_pods(request.observed, job, own)
    if isinstance(pods, Need):
        return pods
    if holds(job, "Complete"):
        return _complete(request, job, pods)
    if holds(job, "Failed"):
        return _Step(entry=_failed(request, job, pods))
    return _unfinished(request, job, pods)


def _behind(request: _Request) -> Object:
    text = "Exports are made one after the other; this one waits for an earlier one."
    return request.entry(ExportState.PENDING, "Waiting", text)


def _start(request: _Request) -> _Step:
    refusal = request.observed.refusal
    if refusal is not None:
        state = ExportState.FAILED if refusal.final else ExportState.PENDING
        return _Step(entry=request.entry(state, refusal.reason, refusal.message))
    try:
        bodies = export_job(request.observed, request.wanted, request.settings)
    except InvalidSpecError as error:
        return _Step(entry=request.entry(ExportState.FAILED, "InvalidSpec", str(error)))
    return _Step(entry=request.entry(ExportState.PENDING, *starting(request.name)), create=bodies)


def _endings(request: _Request, pods: list[Object]) -> list[Ending]:
    memory = container_memory(request.observed)
    return [end for pod in pods if (end := pod_ending(pod, memory)) is not None]


def _complete(request: _Request, job: Object, pods: list[Object]) -> _Step:
    """Succeed with what the pod reported; exit code 0 alone, which completes the Job, is not enough."""
    successful = [end for end in _endings(request, pods) if end.exit_code == 0]
    export = next((found for end in successful if (found := _reported(request, end))), None)
    if export is not None:
        return _Step(entry={**export.to_json(), "jobName": request.name})
    if successful:
        text = f"The pod of the Job {request.name} succeeded, but reported no export. {_retry_hint(request)}"
        return _Step(entry=request.entry(ExportState.FAILED, "ResultUnknown", text))
    # The end of its pod was not observed: another Job checks the export, and makes it again if it is incomplete.
    gone = Deletion("jobs", job["metadata"]["name"], job["metadata"]["uid"])
    return _Step(entry=request.entry(ExportState.PENDING, *starting(request.name)), delete=(gone,))


def _reported(request: _Request, end: Ending) -> ExportStatus | None:
    """Return the export that a pod reported in its termination message."""
    exports = end.termination.exports if end.termination and end.finished else []
    return next((export for export in exports if export.format == request.wanted.format), None)


def _failed(request: _Request, job: Object, pods: list[Object]) -> Object:
    found, ends = condition(job, "Failed") or {}, _endings(request, pods)
    reason, text = found.get("reason") or "JobFailed", found.get("message") or "The Job failed."
    if ends:
        reason, text = ends[-1].reason, ends[-1].sentence
    if reason == "OOMKilled":
        text = (
            f"{ends[-1].message} Make it where there is more memory: copy the run directory and use trainyard-trainer "
            "export."
        )
    return _failed_entry(request, reason, text)


def _failed_entry(request: _Request, reason: str, text: str) -> Object:
    room = _MESSAGE_LIMIT - len(_retry_hint(request)) - 1
    return request.entry(ExportState.FAILED, reason, f"{text[:room]} {_retry_hint(request)}")


def _retry_hint(request: _Request) -> str:
    return f"To try it again, delete its Job: kubectl delete job {request.name}"


def _unfinished(request: _Request, job: Object, pods: list[Object]) -> _Step:
    if job_suspended(job) and request.known is not None and request.known.get("state") == ExportState.FAILED:
        return _Step(entry=request.known)  # it failed at its start deadline, see _within_deadline
    if not pods:
        return _within_deadline(request, job, pods, _without_pod(request, job))
    newest = pods[-1]
    if is_running(newest):
        obstacle = unreachable_node_message(request.observed, [newest])
        reason = "NodeSilent" if obstacle else None
        return _Step(entry=request.entry(ExportState.RUNNING, reason, obstacle))
    if not pod_ended(newest):
        cause = pod_pending_reason(newest) or starting(request.name)
        return _within_deadline(request, job, pods, _Step(entry=request.entry(ExportState.PENDING, *cause)))
    return _between_attempts(request, job, pods)


def _within_deadline(
    request: _Request, job: Object, pods: list[Object], waiting: _Step, cause: str | None = None
) -> _Step:
    """Return the step of a Job that waits; after the start deadline the failure is written, then the Job suspended.

    The Job is not deleted, since its deletion is how a user requests another try.

    Args:
        request: The export.
        job: Its Job.
        pods: Its pods.
        waiting: The step before the deadline.
        cause: What kept it from running, where that differs from the step's message.
    """
    spec, began = request.observed.spec, _start_began(job, pods)
    if began is None:
        return waiting
    left = spec.start_deadline_seconds - (request.now - began).total_seconds()
    if left > 0:
        return replace(waiting, requeue_after=min(left, waiting.requeue_after or left))
    message = start_deadline_message(spec, cause or waiting.entry["message"])
    entry = _failed_entry(request, waiting.entry["reason"], message)
    if entry != request.known:
        return _Step(entry=entry, requeue_after=0.0)
    seen = {key: job["metadata"][key] for key in ("uid", "resourceVersion")}
    return _Step(entry=entry, patches=(Patch("jobs", request.name, {"metadata": seen, "spec": {"suspend": True}}),))


def _start_began(job: Object, pods: list[Object]) -> datetime | None:
    """Return when the present start began; None while the Job is suspended."""
    if job_suspended(job):
        return None
    resumed = condition(job, "Suspended")
    ends = [terminated(pod).get("finishedAt") for pod in pods]
    moments = [job["metadata"]["creationTimestamp"], resumed and resumed.get("lastTransitionTime"), *ends]
    return max(parse_time(moment) for moment in moments if moment)


def _without_pod(request: _Request, job: Object) -> _Step:
    waited = (request.now - parse_time(job["metadata"]["creationTimestamp"])).total_seconds()
    if waited < NO_POD_SECONDS:
        entry = request.entry(ExportState.PENDING, *starting(request.name))
        return _Step(entry=entry, requeue_after=NO_POD_SECONDS - waited)
    return _Step(entry=request.entry(ExportState.PENDING, *no_pod(request.name)))


def _between_attempts(request: _Request, job: Object, pods: list[Object]) -> _Step:
    """Return the step after a pod ended: the next pod follows, unless the Job controller is about to end the Job."""
    ends = _endings(request, pods)
    last, faults = ends[-1], sum(end.action is OnExit.COUNT for end in ends)
    decisive = last.action in (OnExit.COMPLETE, OnExit.FAIL)
    exhausted = faults > job["spec"].get("backoffLimit", 0)
    if decisive or exhausted:
        known = request.known or {}
        return _Step(entry=known if is_unfinished(known) else request.entry(ExportState.RUNNING))
    entry = request.entry(ExportState.PENDING, last.reason, f"{last.message} The next try follows.")
    return _within_deadline(request, job, pods, _Step(entry=entry), last.message)


def _note(before: dict[str, Object], entries: list[Object]) -> Note | None:
    """Return the Event of an export's start or end; an end comes first, since the next start has its own later."""
    changed = [entry for entry in entries if _state(before.get(entry["format"])) != _state(entry)]
    for state in (ExportState.FAILED, ExportState.SUCCEEDED, ExportState.RUNNING):
        for entry in changed:
            if _state(entry) == state:
                return _event(entry, state)
    return None


def _state(entry: Object | None) -> str | None:
    return None if entry is None else str(entry.get("state", ExportState.SUCCEEDED.value))


def _event(entry: Object, state: ExportState) -> Note:
    name = entry["format"]
    if state is ExportState.FAILED:
        return Note("Warning", "ExportFailed", f"Export {name}: {entry['reason']}: {entry['message']}")
    if state is ExportState.SUCCEEDED:
        return Note("Normal", "Exported", f"Export {name}: {entry['bytes']} bytes at {entry['uri']}.")
    return Note("Normal", "Exporting", f"Export {name} is made by the Job {entry['jobName']}.")
