"""Exports that a finished run lacks: each by a Job of its own, one at a time, told in its entry of `status.exports`.

Making an export again is harmless (the trainer keeps one that is whole), so nothing is remembered beside that entry: a
Job that is gone is made anew, and so is one whose result nobody saw. The phase and its conditions are never touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from trainyard_crds.exitcodes import OnExit
from trainyard_crds.exports import Export
from trainyard_crds.report import ExportState
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.fields import condition, holds, owned_by, parse_time
from trainyard_operator.reconcile.plan import Deletion, Need, Note, Patch, Plan
from trainyard_operator.trainingjob.children.render import export_job, export_name
from trainyard_operator.trainingjob.k8s_fields import (
    container_state,
    is_running,
    job_finished,
    job_suspended,
    pod_ended,
)
from trainyard_operator.trainingjob.model import Observed, RenderSettings
from trainyard_operator.trainingjob.pods.attempts import container_memory
from trainyard_operator.trainingjob.pods.pod_termination import Ending, ending
from trainyard_operator.trainingjob.policies.deadlines import too_late
from trainyard_operator.trainingjob.policies.pending_reason import NO_POD_SECONDS, no_pod, pod_waits_for, starting
from trainyard_operator.trainingjob.policies.unreachable_node import silence
from trainyard_operator.trainingjob.spec import InvalidSpecError

_MESSAGE_LIMIT = 1024
_UNFINISHED = (ExportState.PENDING, ExportState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """Where one export is.

    Attributes:
        entry: Its entry in `status.exports`.
        create, patches, delete: What is to be done for it.
        requeue_after: Seconds until time alone changes what is said of it.
    """

    entry: Object
    create: tuple[Object, ...] = ()
    patches: tuple[Patch, ...] = ()
    delete: tuple[Deletion, ...] = ()
    requeue_after: float | None = None

    @property
    def unfinished(self) -> bool:
        """Whether the next export has to wait for this one."""
        return is_unfinished(self.entry)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One entry of `spec.exports` and what is known of it."""

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
    def made(self) -> bool:
        """Whether it is there, copied where it was asked to go."""
        known = self.known
        done = known is not None and known.get("state", ExportState.SUCCEEDED) == ExportState.SUCCEEDED
        return done and known is not None and known.get("destination") == self.wanted.destination

    def entry(self, state: ExportState, reason: str | None = None, message: str | None = None) -> Object:
        """Its entry in the status."""
        texts = {"reason": reason, "message": message and message[:_MESSAGE_LIMIT]}
        kept = {key: value for key, value in texts.items() if value}
        return {"format": self.wanted.format, "state": state.value, "jobName": self.name, **kept}


def exporting(observed: Observed, settings: RenderSettings, now: datetime) -> Plan:
    """What to do about the exports of a job that succeeded, in the order of `spec.exports`."""
    before = {entry["format"]: entry for entry in observed.status.get("exports") or []}
    after, steps = dict(before), list[_Step]()
    for wanted in observed.spec.exports or []:
        request = _Request(
            observed=observed, settings=settings, now=now, wanted=wanted, known=before.get(wanted.format)
        )
        if request.made:
            continue
        step = _step(request, behind=any(step.unfinished for step in steps))
        if isinstance(step, Need):
            return Plan(need=step)
        after[wanted.format] = step.entry
        steps.append(step)
    entries = list(after.values())
    unchanged = entries == list(before.values())
    return Plan(
        create=tuple(body for step in steps for body in step.create),
        patches=tuple(patch for step in steps for patch in step.patches),
        delete=tuple(deletion for step in steps for deletion in step.delete),
        status=None if unchanged else _status(observed, entries),
        note=_note(before, entries),
        requeue_after=min((step.requeue_after for step in steps if step.requeue_after is not None), default=None),
    )


def is_unfinished(entry: Object) -> bool:
    """Whether an entry of `status.exports` tells of something that is not there yet, and may still come."""
    return entry.get("state") in _UNFINISHED


def _status(observed: Observed, entries: list[Object]) -> Object:
    generation = observed.job["metadata"].get("generation")
    known = observed.status.get("observedGeneration")
    return {"exports": entries} | ({} if generation == known else {"observedGeneration": generation})


def _step(request: _Request, *, behind: bool) -> _Step | Need:
    job = request.job
    if job is None:
        return _Step(entry=_waiting(request)) if behind else _start(request)
    if "deletionTimestamp" in job["metadata"]:
        text = f"The Job {request.name} is being deleted; the export is made by a new one."
        return _Step(entry=request.entry(ExportState.PENDING, "JobDeleted", text))
    pods = _own_pods(request.observed, job)
    if isinstance(pods, Need):
        return pods
    if holds(job, "Complete"):
        return _complete(request, job, pods)
    if holds(job, "Failed"):
        return _Step(entry=_failed(request, job, pods))
    return _unfinished(request, job, pods)


def _waiting(request: _Request) -> Object:
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


def _own_pods(observed: Observed, job: Object) -> list[Object] | Need:
    """A Job's pods, oldest first. When it is over, those that seem to go on are looked up: their watch is late."""
    uid, found = job["metadata"]["uid"], list[Object]()
    for pod in observed.export_pods:
        if not owned_by(pod, uid):
            continue
        need = Need("pods", pod["metadata"]["name"])
        if pod_ended(pod) or not job_finished(job):
            found.append(pod)
        elif need not in observed.answers:
            return need
        elif (answer := observed.answers[need]) is not None and answer["metadata"]["uid"] == pod["metadata"]["uid"]:
            found.append(answer)
    return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _endings(request: _Request, pods: list[Object]) -> list[Ending]:
    memory = container_memory(request.observed)
    return [end for pod in pods if (end := ending(pod, memory)) is not None]


def _complete(request: _Request, job: Object, pods: list[Object]) -> _Step:
    """The Job controller believes an exit code; we believe only a message that says what was made."""
    done = [end for end in _endings(request, pods) if end.exit_code == 0]
    for end in done:
        for export in end.termination.exports if end.termination and end.finished else []:
            if export.format == request.wanted.format:
                return _Step(entry={**export.to_json(), "jobName": request.name})
    if done:
        text = f"The pod of the Job {request.name} ended well, but did not say what it made. {_again(request)}"
        return _Step(entry=request.entry(ExportState.FAILED, "ResultUnknown", text))
    # Nobody saw its end: another Job looks at the export, makes it again where it is not whole, and says so.
    gone = Deletion("jobs", job["metadata"]["name"], job["metadata"]["uid"])
    return _Step(entry=request.entry(ExportState.PENDING, *starting(request.name)), delete=(gone,))


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
    return _given_up(request, reason, text)


def _given_up(request: _Request, reason: str, text: str) -> Object:
    room = _MESSAGE_LIMIT - len(_again(request)) - 1
    return request.entry(ExportState.FAILED, reason, f"{text[:room]} {_again(request)}")


def _again(request: _Request) -> str:
    return f"To try it again, delete its Job: kubectl delete job {request.name}"


def _unfinished(request: _Request, job: Object, pods: list[Object]) -> _Step:
    if job_suspended(job) and request.known is not None and request.known.get("state") == ExportState.FAILED:
        return _Step(entry=request.known)  # it was given up, see _in_time
    if not pods:
        return _in_time(request, job, pods, _without_pod(request, job))
    newest = pods[-1]
    if is_running(newest):
        obstacle = silence(request.observed, [newest])
        reason = "NodeSilent" if obstacle else None
        return _Step(entry=request.entry(ExportState.RUNNING, reason, obstacle))
    if not pod_ended(newest):
        waits = pod_waits_for(newest) or starting(request.name)
        return _in_time(request, job, pods, _Step(entry=request.entry(ExportState.PENDING, *waits)))
    return _between(request, job, pods)


def _in_time(request: _Request, job: Object, pods: list[Object], waiting: _Step, cause: str | None = None) -> _Step:
    """What is said of a Job that waits, while it may. One that waited too long is given up: first told, then suspended.

    It is not deleted, since that is how a user asks for another try.

    Args:
        request: The export.
        job: Its Job.
        pods: Its pods.
        waiting: What is said while it may wait.
        cause: What kept it, where that is not what is said.
    """
    spec, began = request.observed.spec, _began(job, pods)
    if began is None:
        return waiting
    left = spec.start_deadline_seconds - (request.now - began).total_seconds()
    if left > 0:
        return replace(waiting, requeue_after=min(left, waiting.requeue_after or left))
    entry = _given_up(request, waiting.entry["reason"], too_late(spec, cause or waiting.entry["message"]))
    if entry != request.known:
        return _Step(entry=entry, requeue_after=0.0)
    seen = {key: job["metadata"][key] for key in ("uid", "resourceVersion")}
    return _Step(entry=entry, patches=(Patch("jobs", request.name, {"metadata": seen, "spec": {"suspend": True}}),))


def _began(job: Object, pods: list[Object]) -> datetime | None:
    """When the present start began; None while somebody holds the Job back."""
    if job_suspended(job):
        return None
    resumed = condition(job, "Suspended")
    ends = [container_state(pod).get("terminated", {}).get("finishedAt") for pod in pods]
    moments = [job["metadata"]["creationTimestamp"], resumed and resumed.get("lastTransitionTime"), *ends]
    return max(parse_time(moment) for moment in moments if moment)


def _without_pod(request: _Request, job: Object) -> _Step:
    waited = (request.now - parse_time(job["metadata"]["creationTimestamp"])).total_seconds()
    if waited < NO_POD_SECONDS:
        entry = request.entry(ExportState.PENDING, *starting(request.name))
        return _Step(entry=entry, requeue_after=NO_POD_SECONDS - waited)
    return _Step(entry=request.entry(ExportState.PENDING, *no_pod(request.name)))


def _between(request: _Request, job: Object, pods: list[Object]) -> _Step:
    """A pod ended: the next one follows, unless the Job controller is about to say that it was the last."""
    ends = _endings(request, pods)
    counted = sum(end.action is OnExit.COUNT for end in ends)
    last = ends[-1]
    near = last.action in (OnExit.COMPLETE, OnExit.FAIL) or counted > job["spec"].get("backoffLimit", 0)
    if near:
        known = request.known or {}
        return _Step(entry=known if is_unfinished(known) else request.entry(ExportState.RUNNING))
    entry = request.entry(ExportState.PENDING, last.reason, f"{last.message} The next try follows.")
    return _in_time(request, job, pods, _Step(entry=entry), last.message)


def _note(before: dict[str, Object], entries: list[Object]) -> Note | None:
    """The Event of an export's begin or end; an end comes first, since the next begin has one of its own later."""
    changed = [entry for entry in entries if _state(before.get(entry["format"])) != _state(entry)]
    for state in (ExportState.FAILED, ExportState.SUCCEEDED, ExportState.RUNNING):
        for entry in changed:
            if _state(entry) == state:
                return _told(entry, state)
    return None


def _state(entry: Object | None) -> str | None:
    return None if entry is None else str(entry.get("state", ExportState.SUCCEEDED.value))


def _told(entry: Object, state: ExportState) -> Note:
    name = entry["format"]
    if state is ExportState.FAILED:
        return Note("Warning", "ExportFailed", f"Export {name}: {entry['reason']}: {entry['message']}")
    if state is ExportState.SUCCEEDED:
        return Note("Normal", "Exported", f"Export {name}: {entry['bytes']} bytes at {entry['uri']}.")
    return Note("Normal", "Exporting", f"Export {name} is made by the Job {entry['jobName']}.")
