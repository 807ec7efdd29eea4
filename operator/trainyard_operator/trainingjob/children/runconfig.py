"""Resolves a TrainingJob's spec into the one document the trainer reads."""

from __future__ import annotations

import json
from hashlib import sha256

from pydantic import ValidationError

from trainyard_crds.constants import (
    CA_DIRECTORY,
    CA_KEY,
    CACHE_DIRECTORY,
    CLAIMS_DIRECTORY,
    RUN_VOLUME,
    TOKEN_DIRECTORY,
    TOKEN_FILE,
    progress_path,
    run_directory,
)
from trainyard_crds.exports import Export
from trainyard_crds.runconfig import (
    Identity,
    Intake,
    RunConfig,
    RunDataset,
    RunModelSource,
    RunResume,
    RunS3,
    RunValidation,
    training_blocks,
)
from trainyard_crds.sources import S3
from trainyard_crds.trainingjob_inputs import Dataset, Model
from trainyard_crds.trainingjob_resume import ResumeFrom
from trainyard_kube.paths import Object
from trainyard_operator.trainingjob.run_identity import run_name, run_uid
from trainyard_operator.trainingjob.spec import InvalidSpecError, Spec, sentence

_PVC = "pvc://"


def run_config(job: Object, spec: Spec, gateway_url: str) -> RunConfig:
    """Return the RunConfig of one TrainingJob.

    Raises:
        InvalidSpecError: the spec's parts do not fit together.
    """
    metadata = job["metadata"]
    namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
    resources = spec.resources
    try:
        return RunConfig(
            job=Identity(namespace=namespace, name=name, uid=uid),
            run_directory=run_directory(RUN_VOLUME, name, run_uid(job, spec)),
            run_uri=run_uri(job, spec),
            cache_directory=CACHE_DIRECTORY if cache_claim(spec) else None,
            model=_model(spec.model),
            resume_from=_resume(spec.resume_from),
            dataset=_dataset(spec.dataset),
            s3=_s3(spec.s3),
            gpus=resources.gpus,
            nodes=resources.nodes,
            processes=resources.processes * resources.nodes,
            progress=Intake(
                url=gateway_url + progress_path(namespace, name),
                token_file=f"{TOKEN_DIRECTORY}/{TOKEN_FILE}",
                ca_file=f"{CA_DIRECTORY}/{CA_KEY}",
            ),
            **training_blocks(spec),
        )
    except ValidationError as error:
        raise InvalidSpecError(sentence(error)) from error


def export_config(job: Object, spec: Spec, export: Export) -> RunConfig:
    """Return the RunConfig of a finished run with one export and without progress reports.

    Raises:
        InvalidSpecError: the spec's parts do not fit together.
    """
    config = run_config(job, spec.model_copy(update={"exports": [export]}), gateway_url="")
    return config.model_copy(update={"progress": None})


def config_text(config: RunConfig) -> tuple[str, str]:
    """Return the document's text and the first 8 digits of its SHA-256."""
    text = json.dumps(config.to_json(), indent=2, sort_keys=True) + "\n"
    return text, sha256(text.encode()).hexdigest()[:8]


def run_claim(job: Object, spec: Spec) -> str:
    """Return the name of the claim with the run directory."""
    return spec.storage.claim_name or run_name(job, spec)


def run_uri(job: Object, spec: Spec) -> str:
    """Return the URI of the run directory: pvc://claim/path."""
    return run_directory(_PVC + run_claim(job, spec), job["metadata"]["name"], run_uid(job, spec))


def cache_claim(spec: Spec) -> str | None:
    """Return the name of the cache claim, if there is one."""
    cache = spec.storage.cache
    return cache.claim_name if cache else None


def source_claims(spec: Spec) -> list[str]:
    """Return the names of the claims that the sources are on, each once, in a stable order."""
    validation = spec.dataset.validation
    resumed = spec.resume_from.run_uri if spec.resume_from else None
    sources = [spec.model.source, spec.dataset.source, (validation.source if validation else None) or "", resumed or ""]
    return sorted({_split(source)[0] for source in sources if source.startswith(_PVC)})


def _model(model: Model) -> RunModelSource:
    path = _local(model.source)
    shown = model.source if path != model.source else None
    return RunModelSource(source=path, revision=model.revision, display_source=shown)


def _resume(resumed: ResumeFrom | None) -> RunResume | None:
    """Return the checkpoint to resume from; the TrainingJob in the spec was replaced by its run directory."""
    if resumed is None or resumed.run_uri is None:
        return None
    directory = _local(resumed.run_uri).removeprefix("file://")
    return RunResume(run_directory=directory, run_uri=resumed.run_uri, checkpoint=resumed.checkpoint, mode=resumed.mode)


def _dataset(dataset: Dataset) -> RunDataset:
    held_out = dataset.validation
    validation = held_out and RunValidation(
        source=held_out.source and _local(held_out.source), sha256=held_out.sha256, fraction=held_out.fraction
    )
    return RunDataset(
        source=_local(dataset.source),
        sha256=dataset.sha256,
        format=dataset.format,
        max_rows=dataset.max_rows,
        on_invalid_row=dataset.on_invalid_row,
        max_invalid_fraction=dataset.max_invalid_fraction,
        validation=validation,
    )


def _s3(s3: S3 | None) -> RunS3:
    return RunS3() if s3 is None else RunS3(endpoint=s3.endpoint, region=s3.region)


def _local(source: str) -> str:
    """Return the source as the pod accesses it: pvc:// becomes the file:// of its mount."""
    if not source.startswith(_PVC):
        return source
    claim, path = _split(source)
    return f"file://{CLAIMS_DIRECTORY}/{claim}/{path}"


def _split(source: str) -> tuple[str, str]:
    claim, _, path = source.removeprefix(_PVC).partition("/")
    return claim, path
