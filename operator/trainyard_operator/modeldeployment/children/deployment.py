"""The Deployment: a container that fetches the model, the engine, and the proxy that is the only way to it."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import NamedTuple

from trainyard_crds.constants import (
    CA_CONFIG_MAP,
    CA_DIRECTORY,
    CA_KEY,
    CACHE_VOLUME,
    CLAIMS_DIRECTORY,
    HUB_CACHE_DIRECTORY,
    HUB_CACHE_ENV,
    TERMINATION_LOG,
    TERMINATION_LOG_ENV,
)
from trainyard_crds.serving import (
    ADAPTER_SET_FILE,
    ADAPTERS_DIRECTORY,
    DRAINED_FILE,
    ENGINE_CONTAINER,
    FETCH_CONTAINER,
    LIVE_PATH,
    MODEL_DIRECTORY,
    PROXY_CONTAINER,
    PROXY_PORT,
    READER_AUDIENCE,
    READER_CA_ENV,
    READER_TOKEN_ENV,
    READER_TOKEN_FILE,
    READY_PATH,
    SERVING_CONFIG_ANNOTATION,
    SERVING_CONFIG_FILE,
    STARTED_PATH,
    STATUS_PORT,
    ServingConfig,
)
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.children import engine
from trainyard_operator.modeldeployment.children.config_maps import adapter_set_name
from trainyard_operator.modeldeployment.children.metadata import child, labels, name_of, pod_labels
from trainyard_operator.modeldeployment.model import ServingSettings
from trainyard_operator.modeldeployment.spec import Spec
from trainyard_operator.pod_template import blocks, nodes, options
from trainyard_operator.quantity import whole_units
from trainyard_operator.queue.kueue_workload import QUEUE_LABEL

_PROBE_SECONDS = 5
_LIVENESS_SECONDS, _LIVENESS_TIMEOUT, _LIVENESS_FAILURES = 20, 15, 3
"""A busy engine answers a one-token completion late, so a hang is assumed after a minute only."""
_DRAIN_MARGIN = 20
"""Seconds of the grace period beyond the drain: endpoints are withdrawn before, the engine ends after it."""
_SHM_SHARE = 4
_TOKEN_SECONDS = 3600
_FETCH_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
_PROXY_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
"""The limit leaves room for the process that fetches an adapter."""
_PROGRAM = ["python", "-m", "trainyard_serving"]
_WAIT_FOR_DRAIN = """\
import os, time
end = time.monotonic() + {seconds}
while time.monotonic() < end and not os.path.exists({file!r}):
    time.sleep(0.2)
"""


class Rollout(NamedTuple):
    """How replicas are replaced, and why so."""

    max_surge: int
    max_unavailable: int
    message: str


def rollout(spec: Spec, *, serves: bool) -> Rollout:
    """Return how replicas are replaced.

    With GPUs no replica is added first: on a full node it would wait for the GPUs of the one that it replaces. While
    nothing serves there is nothing to keep, and a broken replica must not hold the room of its successor. A spec that
    lets no replica be missing gets a surge all the same: the API server refuses a Deployment with neither.

    Args:
        spec: The spec.
        serves: Whether a replica answers requests now.
    """
    surge, missing = spec.rollout.max_surge, spec.rollout.max_unavailable
    if surge is None:
        surge = 1 if missing == 0 or (missing is None and serves and not spec.resources.gpus) else 0
    if missing is None:
        missing = 0 if surge else 1
    if surge:
        text = f"Up to {surge} new replicas start before old ones end."
        if spec.resources.gpus:
            text += f" Each needs {spec.resources.gpus} free GPUs."
    else:
        text = f"Up to {missing} replicas end before their successors start."
        if spec.resources.gpus:
            text += " A surge would need free GPUs."
    return Rollout(surge, missing, text)


def deployment(
    obj: Object,
    spec: Spec,
    settings: ServingSettings,
    config: ServingConfig,
    *,
    config_map: str,
    replicas: int,
    serves: bool,
) -> Object:
    """Return the Deployment.

    Args:
        obj: The ModelDeployment.
        spec: Its spec.
        settings: The operator's settings.
        config: What the pods are given.
        config_map: Name of the ConfigMap with it.
        replicas: Number of pods.
        serves: Whether a replica answers requests now.
    """
    extra = options.extra_metadata(obj, spec, settings.pod_defaults)
    chosen = rollout(spec, serves=serves)
    template = {
        "metadata": {
            "labels": {**extra.labels, **labels(obj)},
            "annotations": {**extra.annotations, SERVING_CONFIG_ANNOTATION: config_map},
        },
        "spec": _pod(obj, spec, settings, config, config_map),
    }
    body = child(
        obj,
        "Deployment",
        "apps/v1",
        name_of(obj),
        spec={
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": spec.start_timeout_seconds + 600,
            "selector": {"matchLabels": pod_labels(obj)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": chosen.max_surge, "maxUnavailable": chosen.max_unavailable},
            },
            "template": template,
        },
    )
    if spec.queue.name is not None:  # under Kueue, which then gates the pods
        body["metadata"]["labels"] = {**body["metadata"]["labels"], QUEUE_LABEL: spec.queue.name}
    return body


def _pod(obj: Object, spec: Spec, settings: ServingSettings, config: ServingConfig, config_map: str) -> Object:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.drain_seconds + _DRAIN_MARGIN,
        **options.identity(spec, settings.pod_defaults),
        **options.runtime_class(spec, settings.pod_defaults),
        **nodes.node_choice(spec.resources),
        "initContainers": [_fetch(spec, settings, config)],
        "containers": [_engine(spec, settings, config), _proxy(spec, settings, config)],
        "volumes": _volumes(obj, spec, settings, config, config_map),
    }


# --- containers -------------------------------------------------------------------------------------------------------


def _fetch(spec: Spec, settings: ServingSettings, config: ServingConfig) -> Object:
    own = [*blocks.scratch_env(), *_source_env(spec), blocks.env(TERMINATION_LOG_ENV, TERMINATION_LOG)]
    return {
        "name": FETCH_CONTAINER,
        "image": settings.proxy_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [*_PROGRAM, "fetch"],
        **options.environment(spec, settings, own),
        "resources": _FETCH_RESOURCES,
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": blocks.RESTRICTED,
        "volumeMounts": [
            _config_mount(),
            *_model_mounts(config, read_only=False),
            *_claim_mounts(spec, config),
            *_reader_mounts(),
            *_cache_mounts(spec, config),
            *options.ca_bundle_mounts(spec, settings),
            *blocks.scratch_mounts(),
        ],
    }


def _engine(spec: Spec, settings: ServingSettings, config: ServingConfig) -> Object:
    default = settings.gpu_image if spec.resources.gpus else settings.cpu_image
    failures = math.ceil(spec.start_timeout_seconds / _PROBE_SECONDS)
    wait = _WAIT_FOR_DRAIN.format(seconds=spec.drain_seconds + _DRAIN_MARGIN // 2, file=DRAINED_FILE)
    limits = _engine_limits(spec)
    return {
        "name": ENGINE_CONTAINER,
        "image": spec.pod.image or default,
        "imagePullPolicy": settings.image_pull_policy,
        "command": engine.command(spec, config),
        **options.environment(spec, settings, engine.environment(spec)),
        "resources": {"requests": limits, "limits": limits},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": blocks.RESTRICTED,
        "startupProbe": _probe(STARTED_PATH, periodSeconds=_PROBE_SECONDS, timeoutSeconds=5, failureThreshold=failures),
        "livenessProbe": _probe(
            LIVE_PATH,
            periodSeconds=_LIVENESS_SECONDS,
            timeoutSeconds=_LIVENESS_TIMEOUT,
            failureThreshold=_LIVENESS_FAILURES,
        ),
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", wait]}}},
        "volumeMounts": [
            *_model_mounts(config, read_only=True),
            *_claim_mounts(spec, config),
            blocks.mount("adapters", ADAPTERS_DIRECTORY, read_only=True),
            blocks.mount("drain", _folder(DRAINED_FILE), read_only=True),
            *_cache_mounts(spec, config, read_only=True),  # the model may be a link to it
            *_shm_mounts(spec),
            *options.ca_bundle_mounts(spec, settings),
            *blocks.scratch_mounts(),
        ],
    }


def _proxy(spec: Spec, settings: ServingSettings, config: ServingConfig) -> Object:
    own = [*blocks.scratch_env(), *_source_env(spec)]
    return {
        "name": PROXY_CONTAINER,
        "image": settings.proxy_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [*_PROGRAM, "proxy"],
        **options.environment(spec, settings, own),
        "resources": _PROXY_RESOURCES,
        "ports": [
            {"name": "http", "containerPort": PROXY_PORT},
            {"name": "status", "containerPort": STATUS_PORT},
        ],
        "securityContext": blocks.RESTRICTED,
        "readinessProbe": _probe(READY_PATH, periodSeconds=2, timeoutSeconds=5, failureThreshold=2),
        "volumeMounts": [
            _config_mount(),
            blocks.mount("adapter-set", _folder(ADAPTER_SET_FILE), read_only=True),
            *_model_mounts(config, read_only=True),
            *_claim_mounts(spec, config),
            blocks.mount("adapters", ADAPTERS_DIRECTORY),
            blocks.mount("drain", _folder(DRAINED_FILE)),
            *_reader_mounts(),
            *_cache_mounts(spec, config),
            *options.ca_bundle_mounts(spec, settings),
            *blocks.scratch_mounts(),
        ],
    }


def _probe(path: str, **numbers: int) -> Object:
    return {"httpGet": {"path": path, "port": STATUS_PORT}, **numbers}


def _engine_limits(spec: Spec) -> dict[str, str]:
    resources = spec.resources
    limits = {"cpu": resources.cpu_limit, "memory": resources.memory_limit}
    if resources.ephemeral_storage:
        limits["ephemeral-storage"] = resources.ephemeral_storage
    if resources.gpus:
        limits[resources.gpu_resource] = str(resources.gpus)
    return limits


def _source_env(spec: Spec) -> list[Object]:
    """Return the variables of what fetches files: the artifact readers', credentials, the shared cache."""
    cache = [] if spec.cache is None else [blocks.env(HUB_CACHE_ENV, HUB_CACHE_DIRECTORY)]
    return [
        blocks.env(READER_CA_ENV, f"{CA_DIRECTORY}/{CA_KEY}"),
        blocks.env(READER_TOKEN_ENV, READER_TOKEN_FILE),
        *cache,
        *blocks.hub_env(spec.model.credentials_secret),
        *blocks.s3_env(spec.s3),
    ]


# --- volumes ----------------------------------------------------------------------------------------------------------


def _volumes(
    obj: Object, spec: Spec, settings: ServingSettings, config: ServingConfig, config_map: str
) -> list[Object]:
    token = {
        "audience": READER_AUDIENCE,
        "expirationSeconds": _TOKEN_SECONDS,
        "path": PurePosixPath(READER_TOKEN_FILE).name,
    }
    claims = _claims(spec, config)
    return [
        {"name": "config", "configMap": {"name": config_map}},
        {"name": "adapter-set", "configMap": {"name": adapter_set_name(obj)}},
        {"name": "adapters", "emptyDir": {}},
        {"name": "drain", "emptyDir": {"sizeLimit": "1Mi"}},
        *([] if _is_mounted(config) else [{"name": "model", "emptyDir": {}}]),
        # Optional, so that no pod waits for it: only files of runs need it.
        {"name": "ca", "configMap": {"name": CA_CONFIG_MAP, "optional": True}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        *(blocks.claim_volume(volume, claim) for claim, volume in claims.items()),
        *_shm_volumes(spec),
        *options.ca_bundle_volumes(spec, settings),
        {"name": "home", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]


def _is_mounted(config: ServingConfig) -> bool:
    """Return whether the model is used in place, on a claim."""
    return config.model.source.startswith("file://")


def _claims(spec: Spec, config: ServingConfig) -> dict[str, str]:
    """Return the volume of each claim: of the model, of spec.volumes, and the cache."""
    found: dict[str, str] = {}
    names = [volume.claim_name for volume in spec.volumes or []]
    if _is_mounted(config):
        names.insert(0, config.model_path.removeprefix(f"{CLAIMS_DIRECTORY}/").partition("/")[0])
    for index, name in enumerate(names):
        found.setdefault(name, f"claim-{index}")
    if spec.cache is not None:
        found.setdefault(spec.cache.claim_name, "cache")
    return found


def _claim_mounts(spec: Spec, config: ServingConfig) -> list[Object]:
    return [
        blocks.mount(volume, f"{CLAIMS_DIRECTORY}/{claim}", read_only=True)
        for claim, volume in _claims(spec, config).items()
        if volume != "cache"
    ]


def _cache_mounts(spec: Spec, config: ServingConfig, *, read_only: bool = False) -> list[Object]:
    """Return the mount of the cache, whose claim may also hold the model."""
    if spec.cache is None:
        return []
    return [blocks.mount(_claims(spec, config)[spec.cache.claim_name], CACHE_VOLUME, read_only=read_only)]


def _model_mounts(config: ServingConfig, *, read_only: bool) -> list[Object]:
    return [] if _is_mounted(config) else [blocks.mount("model", _folder(MODEL_DIRECTORY), read_only=read_only)]


def _reader_mounts() -> list[Object]:
    return [
        blocks.mount("ca", CA_DIRECTORY, read_only=True),
        blocks.mount("token", _folder(READER_TOKEN_FILE), read_only=True),
    ]


def _shm_volumes(spec: Spec) -> list[Object]:
    """Return the shared memory of processes that split a model; it counts against the memory limit."""
    if spec.resources.gpus < 2:
        return []
    size = str(whole_units(spec.resources.memory_limit) // _SHM_SHARE)
    return [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}]


def _shm_mounts(spec: Spec) -> list[Object]:
    return [blocks.mount("shm", "/dev/shm")] if spec.resources.gpus > 1 else []  # noqa: S108 - a volume of the pod


def _config_mount() -> Object:
    return blocks.mount("config", _folder(SERVING_CONFIG_FILE), read_only=True)


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)
