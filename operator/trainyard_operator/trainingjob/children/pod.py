"""Pod specs of the trainer: restricted Pod Security, no API token, only scratch and run volumes writable."""

from __future__ import annotations

from trainyard_crds.constants import (
    CA_CONFIG_MAP,
    CA_DIRECTORY,
    CA_KEY,
    CACHE_VOLUME,
    CLAIMS_DIRECTORY,
    CONFIG_DIRECTORY,
    CONFIG_FILE,
    GPU_VISIBILITY_ENV,
    HUB_CACHE_DIRECTORY,
    HUB_CACHE_ENV,
    KUBEFLOW_CA_ENV,
    KUBEFLOW_TOKEN_ENV,
    KUBEFLOW_URL_ENV,
    NODE_NAME_ENV,
    POD_NAME_ENV,
    POD_UID_ENV,
    RUN_VOLUME,
    TERMINATION_LOG,
    TERMINATION_LOG_ENV,
    TOKEN_DIRECTORY,
    TOKEN_FILE,
    TRAINER_CONTAINER,
    kubeflow_path,
    progress_audience,
)
from trainyard_crds.trainingjob_resources import Resources
from trainyard_kube.paths import Object
from trainyard_operator.pod_template import blocks, nodes, options
from trainyard_operator.quantity import whole_units
from trainyard_operator.trainingjob.children import gang, placement
from trainyard_operator.trainingjob.children.runconfig import cache_claim, run_claim, source_claims
from trainyard_operator.trainingjob.model import RenderSettings
from trainyard_operator.trainingjob.spec import Spec

_TOKEN_SECONDS = 3600
_SHM_SHARE = 4
"""The memory limit divided by the limit of /dev/shm, which counts against it."""
_CHECK_RESOURCES = {"cpu": "500m", "memory": "512Mi"}
_TRAINER = ["python", "-m", "trainyard_trainer"]
_NO_GPU = {"name": GPU_VISIBILITY_ENV, "value": "void"}


def training_pod(
    job: Object, spec: Spec, settings: RenderSettings, *, config_map: str, prefer: tuple[str, ...] = ()
) -> Object:
    """Return the pod that trains; it prefers the nodes that the queue planned."""
    resources = spec.resources
    volumes, mounts = _volumes(job, spec, resources, settings, config_map)
    container = _container(
        image=_image(spec, settings),
        pull_policy=settings.image_pull_policy,
        command=[*_TRAINER, "train", "--config", f"{CONFIG_DIRECTORY}/{CONFIG_FILE}"],
        environment=options.environment(spec, settings, _training_env(job, spec, resources, settings)),
        limits=_limits(resources, settings),
        mounts=mounts,
    )
    runtime_class = options.runtime_class(spec, settings.pod_defaults)
    if resources.claims:
        container["resources"]["claims"] = [{"name": claim.name} for claim in resources.claims]
    return {
        **_placed(container, volumes, spec, settings, prefer),
        **runtime_class,
        **placement.device_claims(resources),
        **placement.topology_spread(job, resources),
        **gang.subdomain(job, resources.nodes),
    }


def export_pod(job: Object, spec: Spec, settings: RenderSettings, *, config_map: str) -> Object:
    """Return the pod that makes an export: the training pod without GPUs and without a token to report progress."""
    container = _container(
        image=_image(spec, settings),
        pull_policy=settings.image_pull_policy,
        command=[*_TRAINER, "export", "--config", f"{CONFIG_DIRECTORY}/{CONFIG_FILE}"],
        environment=options.environment(spec, settings, _export_env(spec)),
        limits=_host_limits(spec.resources, settings),
        mounts=[*_data_mounts(job, spec), *options.ca_bundle_mounts(spec, settings), *blocks.scratch_mounts()],
    )
    volumes = [
        *_data_volumes(job, spec, config_map),
        *options.ca_bundle_volumes(spec, settings),
        *_work_volumes(spec, settings),
    ]
    return _placed(container, volumes, spec, settings)


def _placed(
    container: Object, volumes: list[Object], spec: Spec, settings: RenderSettings, prefer: tuple[str, ...] = ()
) -> Object:
    """Return a pod on the nodes that the spec selects, with the spec's grace period."""
    pod = _pod(container, volumes, options.identity(spec, settings.pod_defaults), _grace_seconds(spec))
    return pod | nodes.node_choice(spec.resources, prefer)


def _grace_seconds(spec: Spec) -> int:
    return spec.checkpoints.grace_period_seconds


def _image(spec: Spec, settings: RenderSettings) -> str:
    """Return the image of the job's pods."""
    return spec.pod.image or settings.trainer_image


def check_pod(job: Object, spec: Spec, settings: RenderSettings, *, image: str | None, directory: str) -> Object:
    """Return the pod that reads a result, on nodes that the run could use: other nodes may not reach its volume.

    The volume is mounted read-only. The spec may be invalid: a finished run is not validated again.
    """
    container = _container(
        image=image or _image(spec, settings),
        pull_policy=settings.image_pull_policy,
        command=[*_TRAINER, "result", "--run-directory", directory],
        environment={"env": [*blocks.scratch_env(), blocks.env(TERMINATION_LOG_ENV, TERMINATION_LOG), _NO_GPU]},
        limits=_CHECK_RESOURCES,
        mounts=[blocks.mount("run", RUN_VOLUME, read_only=True), *blocks.scratch_mounts()],
    )
    volumes = [blocks.claim_volume("run", run_claim(job, spec)), *blocks.scratch_volumes("1Gi", "1Gi")]
    identity = options.identity(spec, settings.pod_defaults)
    return _pod(container, volumes, identity, grace_seconds=10) | nodes.node_choice(spec.resources)


def _pod(container: Object, volumes: list[Object], identity: Object, grace_seconds: int) -> Object:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        **identity,
        "containers": [container],
        "volumes": volumes,
    }


def _container(
    *,
    image: str,
    pull_policy: str,
    command: list[str],
    environment: Object,
    limits: dict[str, str],
    mounts: list[Object],
) -> Object:
    return {
        "name": TRAINER_CONTAINER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": command,
        **environment,
        "resources": {"requests": limits, "limits": limits},
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": blocks.RESTRICTED,
        "volumeMounts": mounts,
    }


def _limits(resources: Resources, settings: RenderSettings) -> dict[str, str]:
    limits = _host_limits(resources, settings)
    if resources.gpus:
        limits[resources.gpu_resource] = str(resources.gpus)
    return limits | {entry.name: entry.quantity for entry in resources.extended or []}


def _host_limits(resources: Resources, settings: RenderSettings) -> dict[str, str]:
    storage = resources.ephemeral_storage or settings.ephemeral_storage
    host = {"cpu": resources.cpu_limit, "memory": resources.memory_limit}
    return host | ({"ephemeral-storage": storage} if storage else {})


def _training_env(job: Object, spec: Spec, resources: Resources, settings: RenderSettings) -> list[Object]:
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    env = [
        *blocks.scratch_env(),
        blocks.env(TERMINATION_LOG_ENV, TERMINATION_LOG),
        blocks.env(KUBEFLOW_URL_ENV, settings.gateway_url + kubeflow_path(namespace, name)),
        blocks.env(KUBEFLOW_CA_ENV, f"{CA_DIRECTORY}/{CA_KEY}"),
        blocks.env(KUBEFLOW_TOKEN_ENV, f"{TOKEN_DIRECTORY}/{TOKEN_FILE}"),
        blocks.field_env(POD_UID_ENV, "metadata.uid"),
        blocks.field_env(POD_NAME_ENV, "metadata.name"),
        blocks.field_env(NODE_NAME_ENV, "spec.nodeName"),
        *gang.environment(job, resources.nodes),
    ]
    if not resources.gpus:
        env.append(_NO_GPU)
    return [*env, *_cache_env(spec), *_credentials_env(spec)]


def _export_env(spec: Spec) -> list[Object]:
    log, pod_uid = blocks.env(TERMINATION_LOG_ENV, TERMINATION_LOG), blocks.field_env(POD_UID_ENV, "metadata.uid")
    return [*blocks.scratch_env(), log, pod_uid, _NO_GPU, *_cache_env(spec), *_credentials_env(spec)]


def _cache_env(spec: Spec) -> list[Object]:
    return [] if cache_claim(spec) is None else [blocks.env(HUB_CACHE_ENV, HUB_CACHE_DIRECTORY)]


def _credentials_env(spec: Spec) -> list[Object]:
    return [*blocks.hub_env(spec.model.credentials_secret), *blocks.s3_env(spec.s3)]


def _volumes(
    job: Object, spec: Spec, resources: Resources, settings: RenderSettings, config_map: str
) -> tuple[list[Object], list[Object]]:
    """Return volumes and mounts of the training pod."""
    shm = {"medium": "Memory", "sizeLimit": str(whole_units(resources.memory_limit) // _SHM_SHARE)}
    volumes = [
        *_data_volumes(job, spec, config_map),
        # Optional, so that no pod waits for it: without it a job trains, but cannot report progress.
        {"name": "ca", "configMap": {"name": CA_CONFIG_MAP, "optional": True}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": _token(job)}]}},
        {"name": "shm", "emptyDir": shm},
        *options.ca_bundle_volumes(spec, settings),
        *_work_volumes(spec, settings),
    ]
    mounts = [
        *_data_mounts(job, spec),
        blocks.mount("ca", CA_DIRECTORY, read_only=True),
        blocks.mount("token", TOKEN_DIRECTORY, read_only=True),
        blocks.mount("shm", "/dev/shm"),  # noqa: S108 - a volume of the pod
        *options.ca_bundle_mounts(spec, settings),
        *blocks.scratch_mounts(),
    ]
    return volumes, mounts


def _work_volumes(spec: Spec, settings: RenderSettings) -> list[Object]:
    """Return the scratch volumes of a pod that trains or exports."""
    resources = spec.resources
    return blocks.scratch_volumes(
        resources.scratch_size or settings.scratch_size, resources.tmp_size or settings.tmp_size
    )


def _data_volumes(job: Object, spec: Spec, config_map: str) -> list[Object]:
    """Return the volumes of the run config and of every claim that a run reads or writes."""
    claims = [blocks.claim_volume(volume, claim) for claim, volume in _claims(job, spec).items()]
    return [*claims, {"name": "config", "configMap": {"name": config_map}}]


def _data_mounts(job: Object, spec: Spec) -> list[Object]:
    claims, cache = _claims(job, spec), cache_claim(spec)
    return [
        blocks.mount("run", RUN_VOLUME),
        *([] if cache is None else [blocks.mount(claims[cache], CACHE_VOLUME)]),
        *(blocks.mount(claims[claim], f"{CLAIMS_DIRECTORY}/{claim}", read_only=True) for claim in source_claims(spec)),
        blocks.mount("config", CONFIG_DIRECTORY, read_only=True),
    ]


def _claims(job: Object, spec: Spec) -> dict[str, str]:
    """Return the volume of each claim; a claim with several purposes is one volume with several mounts."""
    claims = {run_claim(job, spec): "run"}
    for i, claim in enumerate(source_claims(spec)):
        claims.setdefault(claim, f"claim-{i}")
    if (cache := cache_claim(spec)) is not None:
        claims.setdefault(cache, "cache")
    return claims


def _token(job: Object) -> Object:
    audience = progress_audience(job["metadata"]["uid"])
    return {"audience": audience, "expirationSeconds": _TOKEN_SECONDS, "path": TOKEN_FILE}
