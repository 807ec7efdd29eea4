"""Bodies of a TrainingJob's children: ConfigMap, claim, training Job, check Job, export Jobs."""

from __future__ import annotations

from trainyard_crds.common import API_VERSION
from trainyard_crds.constants import (
    ADMITTED_ANNOTATION,
    CONFIG_FILE,
    ENQUEUED_ANNOTATION,
    JOB_NAME_LABEL,
    JOB_UID_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    ROLE_LABEL,
    RUN_CONFIG_ANNOTATION,
    RUN_VOLUME,
    TRAINER_CONTAINER,
    child_name,
    run_directory,
    service_name,
)
from trainyard_crds.exitcodes import OnExit, codes_for
from trainyard_crds.exports import Export
from trainyard_crds.runconfig import RunConfig
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission
from trainyard_operator.pod_template.options import Extra, extra_metadata
from trainyard_operator.trainingjob.children import gang, pod
from trainyard_operator.trainingjob.children.resumed_run import with_known_run
from trainyard_operator.trainingjob.children.runconfig import (
    config_text,
    export_config,
    run_claim,
    run_config,
)
from trainyard_operator.trainingjob.model import Observed, RenderSettings
from trainyard_operator.trainingjob.run_identity import is_restored, run_uid
from trainyard_operator.trainingjob.spec import InvalidSpecError, Spec

TRAIN_ROLE, CHECK_ROLE, EXPORT_ROLE = "train", "check", "export"
_CHECK_SECONDS = 300


def children(observed: Observed, settings: RenderSettings, admission: Admission) -> tuple[Object, ...]:
    """Return ConfigMap, claim (if one is made), Service (of a gang) and Job, in the order in which a pod needs them.

    Args:
        observed: The TrainingJob.
        settings: The operator's settings.
        admission: Time of the admission and planned nodes, which are preferred: a later attempt may use others.

    Raises:
        InvalidSpecError: the spec does not fit this operator's API.
    """
    job, spec = observed.job, with_known_run(observed, _valid(observed))
    name = child_name(job["metadata"]["name"], job["metadata"]["uid"])
    config_map = _config_map(job, run_config(job, spec, settings.gateway_url), TRAIN_ROLE)
    nodes = spec.resources.nodes
    claim = () if spec.storage.claim_name or is_restored(observed) else (_claim(job, spec),)
    service = () if nodes == 1 else (_service(job),)
    config_name = config_map["metadata"]["name"]
    train = _job(
        job,
        extra_metadata(job, spec, settings.pod_defaults),
        name=name,
        role=TRAIN_ROLE,
        annotations={RUN_CONFIG_ANNOTATION: config_name} | _admitted(admission),
        spec=gang.job_spec(nodes, _retries(spec)),
        pod_spec=pod.training_pod(job, spec, settings, config_map=config_name, prefer=admission.nodes),
    )
    return config_map, *claim, *service, _for_kueue(train, admission)


def export_job(observed: Observed, export: Export, settings: RenderSettings) -> tuple[Object, ...]:
    """Return ConfigMap and Job that make one export of a finished run, on the CPU.

    Args:
        observed: The TrainingJob.
        export: The entry of `spec.exports`.
        settings: The operator's settings.

    Raises:
        InvalidSpecError: the spec does not fit this operator's API.
    """
    job, spec = observed.job, _valid(observed).model_copy(update={"resume_from": None})
    config_map = _config_map(job, export_config(job, spec, export), EXPORT_ROLE)
    config_name = config_map["metadata"]["name"]
    made = _job(
        job,
        extra_metadata(job, spec, settings.pod_defaults),
        name=export_name(job["metadata"]["name"], job["metadata"]["uid"], export.format),
        role=EXPORT_ROLE,
        annotations={RUN_CONFIG_ANNOTATION: config_name},
        spec=_retries(spec),
        pod_spec=pod.export_pod(job, spec, settings, config_map=config_name),
    )
    return config_map, made


def export_name(job_name: str, uid: str, format_: str) -> str:
    """Return the name of an export's Job; 5 letters distinguish the formats, and a label value has room for no more."""
    return f"{child_name(job_name, uid)}-{format_[:5]}"


def check_job(observed: Observed, settings: RenderSettings, *, image: str | None) -> Object:
    """Return the Job that reads result.json from the run's volume into its termination message.

    Args:
        observed: The TrainingJob.
        settings: The operator's settings.
        image: Image of the training Job; None when that is gone.
    """
    job, metadata = observed.job, observed.job["metadata"]
    directory = run_directory(RUN_VOLUME, metadata["name"], run_uid(job, observed.spec))
    return _job(
        job,
        extra_metadata(job, observed.spec, settings.pod_defaults),
        name=check_name(metadata["name"], metadata["uid"]),
        role=CHECK_ROLE,
        annotations={},
        spec={"backoffLimit": 2, "activeDeadlineSeconds": _CHECK_SECONDS, "ttlSecondsAfterFinished": _CHECK_SECONDS},
        pod_spec=pod.check_pod(job, observed.spec, settings, image=image, directory=directory),
    )


def check_name(job_name: str, uid: str) -> str:
    """Return the name of the check Job."""
    return f"{child_name(job_name, uid)}-check"


def _valid(observed: Observed) -> Spec:
    if observed.spec_error:
        raise InvalidSpecError(observed.spec_error)
    return observed.spec


def _config_map(job: Object, config: RunConfig, role: str) -> Object:
    text, digest = config_text(config)
    name = child_name(job["metadata"]["name"], job["metadata"]["uid"])
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job, f"{name}-{digest}", role),
        "immutable": True,
        "data": {CONFIG_FILE: text},
    }


def _admitted(admission: Admission) -> Object:
    """Return the annotations of the admission, which survive an operator that is killed before it writes the status."""
    if not admission.admitted_at:
        return {}
    enqueued = (admission.queue or {}).get("enqueuedAt")
    return {ADMITTED_ANNOTATION: admission.admitted_at} | ({ENQUEUED_ANNOTATION: enqueued} if enqueued else {})


def _for_kueue(train: Object, admission: Admission) -> Object:
    """Return the Job with Kueue's labels and suspended; Kueue owns its `spec.suspend` and template from then on."""
    if admission.handoff is None:
        return train
    labels = {**train["metadata"]["labels"], **admission.handoff.labels}
    return {**train, "metadata": {**train["metadata"], "labels": labels}, "spec": {**train["spec"], "suspend": True}}


def _retries(spec: Spec) -> Object:
    """Return how a Job handles pods that fail."""
    return {
        "backoffLimit": spec.retry.limit,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_rules()},
    }


def failure_rules() -> list[Object]:
    """Return the rules of podFailurePolicy; a failure that none matches counts against backoffLimit."""
    return [
        _exit_rule(OnExit.IGNORE),
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _exit_rule(OnExit.FAIL),
    ]


def _exit_rule(action: OnExit) -> Object:
    codes = {"containerName": TRAINER_CONTAINER, "operator": "In", "values": codes_for(action)}
    return {"action": action.value, "onExitCodes": codes}


def owner_reference(job: Object) -> Object:
    """Return the reference by which the garbage collector deletes a child with its TrainingJob."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owner_labels(job: Object, role: str) -> dict[str, str]:
    """Return the labels by which a child of a TrainingJob is found."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        JOB_NAME_LABEL: job["metadata"]["name"],
        JOB_UID_LABEL: job["metadata"]["uid"],
        ROLE_LABEL: role,
    }


def _metadata(job: Object, name: str, role: str = TRAIN_ROLE) -> Object:
    return {
        "name": name,
        "namespace": job["metadata"]["namespace"],
        "labels": owner_labels(job, role),
        "ownerReferences": [owner_reference(job)],
    }


def _service(job: Object) -> Object:
    name = service_name(job["metadata"]["name"], job["metadata"]["uid"])
    return gang.service(_metadata(job, name), TRAIN_ROLE)


def _claim(job: Object, spec: Spec) -> Object:
    """Return the claim of the run directory; a retained one has no owner, so that it outlives the TrainingJob."""
    storage, metadata = spec.storage, _metadata(job, run_claim(job, spec))
    if storage.is_retained:
        del metadata["ownerReferences"]
    claim: Object = {
        "accessModes": [storage.claim_access_mode(spec.resources.nodes)],
        "resources": {"requests": {"storage": storage.claim_size}},
    }
    if storage.storage_class_name:
        claim["storageClassName"] = storage.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim}


def _job(
    job: Object,
    extra: Extra,
    *,
    name: str,
    role: str,
    annotations: dict[str, str],
    spec: Object,
    pod_spec: Object,
) -> Object:
    metadata = _metadata(job, name, role)
    metadata["labels"] = {**extra.labels, **metadata["labels"]}
    if extra.annotations or annotations:
        metadata["annotations"] = {**extra.annotations, **annotations}
    template = {"metadata": {"labels": {**extra.labels, **owner_labels(job, role)}}, "spec": pod_spec}
    if extra.annotations:
        template["metadata"]["annotations"] = dict(extra.annotations)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**spec, "template": template}}
