"""What a ModelDeployment serves: the files of its model and adapters, by its spec and the TrainingJobs in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from pydantic import ValidationError

from trainyard_crds.constants import CLAIMS_DIRECTORY
from trainyard_crds.modeldeployment_model import ModelReference, RunReference, ServedAdapter
from trainyard_crds.modeldeployment_status import ServedModelStatus
from trainyard_crds.serving import BASE_NAME, Artifact, DesiredAdapter
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.model import Observed
from trainyard_operator.modeldeployment.spec import Spec

_PVC = "pvc://"
_WEIGHTS = "weights"
"""Directory of a checkpoint with the files that are loaded."""
_DEFAULT_RANK = 16
"""Rank of an adapter whose TrainingJob sets none; also vLLM's default maximum."""


class Fault(NamedTuple):
    """Why something cannot be served.

    Attributes:
        reason: CamelCase reason.
        message: Cause and remedy, a sentence.
        final: Whether only a change of the ModelDeployment helps, or another TrainingJob.
    """

    reason: str
    message: str
    final: bool


@dataclass(frozen=True, kw_only=True)
class ResolvedAdapter:
    """An adapter and where it comes from.

    Attributes:
        name: Its name in requests.
        desired: What replicas are given; None while it cannot be served.
        source: Where it is loaded from, as users know it.
        checkpoint: Name of the checkpoint of a run.
        rank: Its rank; None if unknown.
        fault: Why it cannot be served.
        note: What is to be known about it otherwise, a sentence.
    """

    name: str
    desired: DesiredAdapter | None = None
    source: str | None = None
    checkpoint: str | None = None
    rank: int | None = None
    fault: Fault | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What is served.

    Attributes:
        model: The files that the engine loads.
        base_name: Name of that model in requests.
        served_name: Name of what the ModelDeployment serves: of the model, or of the adapter of its TrainingJob.
        status: The model, for the status.
        adapters: The adapters; that of the TrainingJob of the model first.
        note: What is to be known otherwise, a sentence.
    """

    model: Artifact
    base_name: str
    served_name: str
    status: ServedModelStatus
    adapters: tuple[ResolvedAdapter, ...] = ()
    note: str = ""


def resolve(observed: Observed) -> Resolved | Fault:
    """Return what a ModelDeployment serves, or why it serves nothing.

    What was served before is kept while its TrainingJob is deleted, or is a new one of that name that still runs.
    """
    try:
        return _resolve(observed)
    except ValidationError as error:
        return _malformed(error)


def _resolve(observed: Observed) -> Resolved | Fault:
    spec = observed.spec
    if spec.model.from_ is None:
        assert spec.model.source is not None
        model = _source_artifact(spec.model.source, spec.model.revision)
        served = _served_name(observed)
        status = ServedModelStatus(source=model.display, revision=spec.model.revision)
        found: Resolved | Fault = Resolved(model=model, base_name=served, served_name=served, status=status)
    else:
        found = _of_job(observed, spec.model.from_)
        if isinstance(found, Fault):
            found = _kept_model(observed, spec.model.from_, found) or found
    if isinstance(found, Fault):
        return found
    own = tuple(_adapter(observed, adapter, found) for adapter in spec.adapters or [])
    return replace(found, adapters=(*found.adapters, *own))


def _malformed(error: ValidationError) -> Fault:
    """Return the fault of a status that another program wrote, and that names no files."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    text = f"The status of the TrainingJob has an invalid {field} ({first['input']!r}), so its files are not served."
    return Fault("MalformedStatus", f"{text} Name another TrainingJob, or a source.", final=True)


def named_jobs(spec: Spec) -> set[str]:
    """Return the names of the TrainingJobs that a spec names."""
    references = [spec.model.from_, *(adapter.from_ for adapter in spec.adapters or [])]
    return {reference.training_job for reference in references if reference is not None}


def run_claims(resolved: Resolved) -> set[str]:
    """Return the claims from which replicas read files of runs."""
    artifacts = [resolved.model, *(adapter.desired.artifact for adapter in resolved.adapters if adapter.desired)]
    return {artifact.source.removeprefix("run://").partition("/")[0] for artifact in artifacts if _is_run(artifact)}


def _is_run(artifact: Artifact) -> bool:
    return artifact.source.startswith("run://")


# --- TrainingJobs -----------------------------------------------------------------------------------------------------


def _of_job(observed: Observed, reference: ModelReference) -> Resolved | Fault:
    job = _finished_job(observed.jobs, reference)
    if isinstance(job, Fault):
        return job
    served = _served_name(observed)
    if reference.export is not None:
        return _of_export(job, reference.export, served)
    found = _checkpoint(job, reference)
    if isinstance(found, Fault):
        return found
    if job["spec"].get("method") == "full":
        model = found.artifact
        status = _run_status(model, job, found.name)
        return Resolved(model=model, base_name=served, served_name=served, status=status)
    base = _base_model(job)
    adapter = ResolvedAdapter(
        name=served,
        desired=DesiredAdapter(name=served, artifact=found.artifact, base=base.display),
        source=found.artifact.display,
        checkpoint=found.name,
        rank=_rank(job),
    )
    status = ServedModelStatus(
        source=base.display, revision=base.revision, training_job=job["metadata"]["name"], checkpoint=found.name
    )
    return Resolved(model=base, base_name=BASE_NAME, served_name=served, status=status, adapters=(adapter,))


def _of_export(job: Object, export: str, served: str) -> Resolved | Fault:
    name = job["metadata"]["name"]
    entries = [entry for entry in _status(job).get("exports") or [] if entry["format"] == export]
    written = [entry for entry in entries if entry.get("state", "Succeeded") == "Succeeded" and entry.get("uri")]
    if written:
        model = _run_artifact(written[0]["uri"], written[0].get("digest"))
        return Resolved(model=model, base_name=served, served_name=served, status=_run_status(model, job, None))
    if entries and entries[0].get("state") != "Failed":
        text = (
            f"The export {export} of TrainingJob {name} is {entries[0].get('state')}; it is served when it is written."
        )
        return Fault("WaitingForExport", text, final=False)
    if entries:
        text = (
            f"The export {export} of TrainingJob {name} failed: {entries[0].get('message', '')} Correct the cause and "
            f"delete its Job {entries[0].get('jobName', '')}; it is then made again."
        )
        return Fault("ExportFailed", text, final=False)
    text = (
        f"TrainingJob {name} has no export {export}. Add format: {export} to spec.exports of the TrainingJob; a Job "
        "then makes it."
    )
    return Fault("ExportNotFound", text, final=False)


def _finished_job(jobs: Mapping[str, Object], reference: RunReference) -> Object | Fault:
    """Return a TrainingJob whose checkpoints can be served, or what is to be waited for."""
    name = reference.training_job
    job = jobs.get(name)
    if job is None:
        text = f"There is no TrainingJob {name} in this namespace. Create it, or name another one."
        return Fault("TrainingJobNotFound", text, final=False)
    phase = _status(job).get("phase") or "Pending"
    if phase in ("Succeeded", "Stopped"):
        return job
    if phase == "Failed":
        reason = next((c["reason"] for c in _status(job).get("conditions") or [] if c["type"] == "Failed"), "Failed")
        text = f"TrainingJob {name} failed ({reason}): {_status(job).get('message', '')} Name another TrainingJob."
        return Fault("TrainingJobFailed", text, final=True)
    text = f"Waits for TrainingJob {name}, which is {phase}."
    return Fault("WaitingForTrainingJob", text, final=False)


class _Checkpoint(NamedTuple):
    name: str
    artifact: Artifact


def _checkpoint(job: Object, reference: RunReference) -> _Checkpoint | Fault:
    saved = _status(job).get("checkpoints") or []
    name, wanted = job["metadata"]["name"], reference.checkpoint
    if not saved:
        return Fault("CheckpointNotFound", f"TrainingJob {name} has no checkpoint. Name another one.", final=True)
    best = [entry for entry in saved if entry.get("best")]
    chosen = {"last": saved[-1:], "best": best or saved[-1:]}.get(wanted)
    if chosen is None:
        chosen = [entry for entry in saved if entry["name"] == wanted]
    if not chosen:
        have = ", ".join(entry["name"] for entry in saved)
        text = f"TrainingJob {name} has no checkpoint {wanted}; it has {have}. Name one of them, best or last."
        return Fault("CheckpointNotFound", text, final=True)
    entry = chosen[0]
    uri = entry.get("uri") or f"{_status(job).get('runUri', '')}/checkpoints/{entry['name']}"
    return _Checkpoint(entry["name"], _run_artifact(uri, entry.get("digest"), files=_WEIGHTS))


def _run_artifact(uri: str, digest: str | None, files: str = "") -> Artifact:
    return Artifact(source=f"run://{uri.removeprefix(_PVC)}", digest=digest, files=files, display=uri)


def _run_status(model: Artifact, job: Object, checkpoint: str | None) -> ServedModelStatus:
    name = job["metadata"]["name"]
    return ServedModelStatus(source=model.display, digest=model.digest, training_job=name, checkpoint=checkpoint)


def _base_model(job: Object) -> Artifact:
    """Return the base model that a TrainingJob trained on, at the revision that it resolved."""
    spec, known = job["spec"]["model"], _status(job).get("model") or {}
    return _source_artifact(spec["source"], known.get("revision") or spec.get("revision"))


def _rank(job: Object) -> int:
    return int((job["spec"].get("adapter") or {}).get("rank") or _DEFAULT_RANK)


def _status(obj: Object) -> Object:
    return obj.get("status") or {}


# --- what was served before -------------------------------------------------------------------------------------------


def _kept_model(observed: Observed, reference: ModelReference, fault: Fault) -> Resolved | None:
    """Return what was served before for this reference, while its TrainingJob is away."""
    known = observed.status.get("model")
    if fault.reason not in ("TrainingJobNotFound", "WaitingForTrainingJob") or not known:
        return None
    if known.get("trainingJob") != reference.training_job or observed.deployment is None:
        return None
    status = ServedModelStatus.model_validate(known)
    if not _names(reference, status):
        return None
    served = _served_name(observed)
    note = f"{fault.message} What was served before stays."
    if status.digest is not None:
        files = "" if reference.export else _WEIGHTS
        model = _run_artifact(status.source, status.digest, files)
        return Resolved(model=model, base_name=served, served_name=served, status=status, note=note)
    adapter = _kept_adapter(observed, served, base=status.source)
    if adapter is None:
        return None
    model = _source_artifact(status.source, status.revision)
    return Resolved(model=model, base_name=BASE_NAME, served_name=served, status=status, adapters=(adapter,), note=note)


def _names(reference: ModelReference, status: ServedModelStatus) -> bool:
    """Return whether a reference still names what was served before: that export, or that checkpoint."""
    if reference.export is not None:
        return status.checkpoint is None and status.source.endswith(f"/exports/{reference.export}")
    return status.checkpoint is not None and reference.checkpoint in ("best", "last", status.checkpoint)


def _kept_adapter(observed: Observed, name: str, *, base: str) -> ResolvedAdapter | None:
    known = next((entry for entry in observed.status.get("adapters") or [] if entry["name"] == name), None)
    if known is None or not known.get("digest") or not known.get("source"):
        return None
    artifact = _run_artifact(known["source"], known["digest"], _WEIGHTS)
    return ResolvedAdapter(
        name=name,
        desired=DesiredAdapter(name=name, artifact=artifact, base=base),
        source=known["source"],
        checkpoint=known.get("checkpoint"),
    )


# --- spec.adapters ----------------------------------------------------------------------------------------------------


def _adapter(observed: Observed, adapter: ServedAdapter, resolved: Resolved) -> ResolvedAdapter:
    try:
        return _resolve_adapter(observed, adapter, resolved)
    except ValidationError as error:
        return ResolvedAdapter(name=adapter.name, fault=_malformed(error))


def _resolve_adapter(observed: Observed, adapter: ServedAdapter, resolved: Resolved) -> ResolvedAdapter:
    if adapter.from_ is None:
        assert adapter.source is not None
        artifact = _source_artifact(adapter.source, adapter.revision)
        desired = DesiredAdapter(name=adapter.name, artifact=artifact)
        return ResolvedAdapter(name=adapter.name, desired=desired, source=artifact.display)
    found = _adapter_of_job(observed, adapter.name, adapter.from_, resolved)
    if found.fault is not None and found.fault.reason in ("TrainingJobNotFound", "WaitingForTrainingJob"):
        kept = _kept_adapter(observed, adapter.name, base=resolved.model.display)
        if kept is not None:
            return replace(kept, note=f"{found.fault.message} What was served before stays.")
    return found


def _adapter_of_job(observed: Observed, name: str, reference: RunReference, resolved: Resolved) -> ResolvedAdapter:
    job = _finished_job(observed.jobs, reference)
    if isinstance(job, Fault):
        return ResolvedAdapter(name=name, fault=job)
    if job["spec"].get("method") == "full":
        text = (
            f"TrainingJob {reference.training_job} has method: full and so no adapter. Serve it as spec.model.from of "
            "another ModelDeployment, or name a job with method: lora or qlora."
        )
        return ResolvedAdapter(name=name, fault=Fault("NotAnAdapterJob", text, final=True))
    found = _checkpoint(job, reference)
    if isinstance(found, Fault):
        return ResolvedAdapter(name=name, fault=found)
    base = _base_model(job)
    if base.source != resolved.model.source or base.revision != (resolved.model.revision or base.revision):
        text = (
            f"The adapter of TrainingJob {reference.training_job} was trained on {_shown(base)}; this ModelDeployment "
            f"serves {_shown(resolved.model)}. Serve it beside its own base model."
        )
        return ResolvedAdapter(name=name, fault=Fault("AdapterOfAnotherBase", text, final=True))
    return ResolvedAdapter(
        name=name,
        desired=DesiredAdapter(name=name, artifact=found.artifact, base=base.display),
        source=found.artifact.display,
        checkpoint=found.name,
        rank=_rank(job),
    )


def _shown(artifact: Artifact) -> str:
    return f"{artifact.display} at {artifact.revision}" if artifact.revision else artifact.display


# --- sources ----------------------------------------------------------------------------------------------------------


def _source_artifact(source: str, revision: str | None) -> Artifact:
    """Return the files of a source in a spec; a claim is mounted, so that its files are used in place."""
    if source.startswith(_PVC):
        return Artifact(source=f"file://{CLAIMS_DIRECTORY}/{source.removeprefix(_PVC)}", display=source)
    return Artifact(source=source, revision=revision, display=source)


def _served_name(observed: Observed) -> str:
    return observed.spec.model.served_name or observed.name
