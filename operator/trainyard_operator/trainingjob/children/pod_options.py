"""Options of pods, from spec.pod and the chart: metadata, environment, identity, classes, CAs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trainyard_crds.constants import CA_BUNDLE_DIRECTORY, CA_BUNDLE_ENV
from trainyard_crds.pod_options import CaBundle, PodSecurity
from trainyard_kube.paths import Object
from trainyard_operator.trainingjob.model import RenderSettings
from trainyard_operator.trainingjob.pod_defaults import (
    PodDefaults,
    allowed,
    is_reserved_annotation,
    is_reserved_label,
)
from trainyard_operator.trainingjob.spec import Spec


class Extra(NamedTuple):
    """Labels and annotations of a job's Jobs and pods beside Trainyard's own."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def extra_metadata(job: Object, spec: Spec, defaults: PodDefaults) -> Extra:
    """Return the additional labels and annotations: of the chart, of the TrainingJob, then of spec.pod.

    A later one replaces an earlier one with the same key. Those of the TrainingJob need a place in the chart's
    allow-list.
    """
    metadata = job["metadata"]
    labels = allowed(metadata.get("labels") or {}, defaults.propagate_labels)
    annotations = allowed(metadata.get("annotations") or {}, defaults.propagate_annotations)
    return Extra(
        {
            **defaults.labels,
            **{key: value for key, value in labels.items() if not is_reserved_label(key)},
            **(spec.pod.labels or {}),
        },
        {
            **defaults.annotations,
            **{key: value for key, value in annotations.items() if not is_reserved_annotation(key)},
            **(spec.pod.annotations or {}),
        },
    )


def image(spec: Spec, settings: RenderSettings) -> str:
    """Return the image of the job's pods."""
    return spec.pod.image or settings.trainer_image


def identity(spec: Spec, defaults: PodDefaults) -> Object:
    """Return the parts of every pod of a job that say under which names it runs: ServiceAccount, classes, user."""
    own = spec.pod
    secrets = own.image_pull_secrets or defaults.image_pull_secrets
    optional = {
        "serviceAccountName": own.service_account_name or defaults.service_account_name,
        "priorityClassName": own.priority_class_name or defaults.priority_class_name,
        "schedulerName": own.scheduler_name or defaults.scheduler_name,
        "imagePullSecrets": [{"name": secret.name} for secret in secrets],
    }
    return {key: value for key, value in optional.items() if value} | {"securityContext": _security(spec, defaults)}


def runtime_class(spec: Spec, defaults: PodDefaults) -> Object:
    """Return the RuntimeClass of a training pod; the chart's is for pods with GPUs."""
    name = spec.pod.runtime_class_name or (defaults.runtime_class_name if spec.resources.gpus else None)
    return {"runtimeClassName": name} if name else {}


def _security(spec: Spec, defaults: PodDefaults) -> Object:
    own, default = spec.pod.security_context or PodSecurity(), defaults.security_context
    optional = {
        "runAsUser": own.run_as_user or default.run_as_user,
        "runAsGroup": own.run_as_group or default.run_as_group,
        "fsGroup": own.fs_group or default.fs_group,
    }
    return {
        "runAsNonRoot": True,
        **{key: value for key, value in optional.items() if value},
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def environment(spec: Spec, settings: RenderSettings, own: list[Object]) -> Object:
    """Return `env` and `envFrom` of a container that trains or exports.

    Args:
        spec: The spec.
        settings: The operator's settings.
        own: Variables that Trainyard sets; they take precedence over those of the spec, and these over the chart's.
    """
    bundle = _bundle(spec, settings)
    trusted = [] if bundle is None else [{"name": CA_BUNDLE_ENV, "value": f"{CA_BUNDLE_DIRECTORY}/{bundle.key}"}]
    last = [*own, *trusted]
    taken = {entry["name"] for entry in last}
    chosen = [entry.model_dump(by_alias=True, exclude_none=True) for entry in spec.pod.env or []]
    chosen = [entry for entry in chosen if entry["name"] not in taken]
    taken |= {entry["name"] for entry in chosen}
    first = [
        {"name": name, "value": value} for name, value in sorted(settings.environment.items()) if name not in taken
    ]
    sources = [entry.model_dump(by_alias=True, exclude_none=True) for entry in spec.pod.env_from or []]
    return {"env": [*first, *chosen, *last]} | ({"envFrom": sources} if sources else {})


def ca_bundle_volumes(spec: Spec, settings: RenderSettings) -> list[Object]:
    """Return the volume of the CA bundle, if there is one."""
    bundle = _bundle(spec, settings)
    return [] if bundle is None else [{"name": "ca-bundle", "configMap": {"name": bundle.name}}]


def ca_bundle_mounts(spec: Spec, settings: RenderSettings) -> list[Object]:
    """Return the mount of the CA bundle, if there is one."""
    if _bundle(spec, settings) is None:
        return []
    return [{"name": "ca-bundle", "mountPath": CA_BUNDLE_DIRECTORY, "readOnly": True}]


def _bundle(spec: Spec, settings: RenderSettings) -> CaBundle | None:
    return spec.pod.ca_bundle or settings.pod_defaults.ca_bundle
