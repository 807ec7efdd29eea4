"""Options of pods, from spec.pod and the chart: metadata, environment, identity, classes, CAs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from trainyard_crds.constants import CA_BUNDLE_DIRECTORY, CA_BUNDLE_ENV
from trainyard_crds.pod_options import CaBundle, PodOptions, PodSecurity
from trainyard_kube.paths import Object
from trainyard_operator.pod_template.defaults import (
    PodDefaults,
    allowed,
    is_reserved_annotation,
    is_reserved_label,
)


class Gpus(Protocol):
    """The resources of a pod."""

    @property
    def gpus(self) -> int:
        """Its GPUs."""


class PodSpec(Protocol):
    """The spec of an object that has pods."""

    @property
    def pod(self) -> PodOptions:
        """Options of its pods."""

    @property
    def resources(self) -> Gpus:
        """Resources of each pod."""


class PodSettings(Protocol):
    """The settings of the operator that go into every pod."""

    @property
    def pod_defaults(self) -> PodDefaults:
        """Options that a spec does not set."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Additional variables, by name."""


class Extra(NamedTuple):
    """Labels and annotations of an object's children beside Trainyard's own."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def extra_metadata(obj: Object, spec: PodSpec, defaults: PodDefaults) -> Extra:
    """Return the additional labels and annotations: of the chart, of the object, then of spec.pod.

    A later one replaces an earlier one with the same key. Those of the object need a place in the chart's
    allow-list.
    """
    metadata = obj["metadata"]
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


def identity(spec: PodSpec, defaults: PodDefaults) -> Object:
    """Return the parts of every pod that say under which names it runs: ServiceAccount, classes, user."""
    own = spec.pod
    secrets = own.image_pull_secrets or defaults.image_pull_secrets
    optional = {
        "serviceAccountName": own.service_account_name or defaults.service_account_name,
        "priorityClassName": own.priority_class_name or defaults.priority_class_name,
        "schedulerName": own.scheduler_name or defaults.scheduler_name,
        "imagePullSecrets": [{"name": secret.name} for secret in secrets],
    }
    return {key: value for key, value in optional.items() if value} | {"securityContext": _security(spec, defaults)}


def runtime_class(spec: PodSpec, defaults: PodDefaults) -> Object:
    """Return the RuntimeClass of a pod; the chart's is for pods with GPUs."""
    name = spec.pod.runtime_class_name or (defaults.runtime_class_name if spec.resources.gpus else None)
    return {"runtimeClassName": name} if name else {}


def _security(spec: PodSpec, defaults: PodDefaults) -> Object:
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


def environment(spec: PodSpec, settings: PodSettings, own: list[Object]) -> Object:
    """Return `env` and `envFrom` of a container.

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


def ca_bundle_volumes(spec: PodSpec, settings: PodSettings) -> list[Object]:
    """Return the volume of the CA bundle, if there is one."""
    bundle = _bundle(spec, settings)
    return [] if bundle is None else [{"name": "ca-bundle", "configMap": {"name": bundle.name}}]


def ca_bundle_mounts(spec: PodSpec, settings: PodSettings) -> list[Object]:
    """Return the mount of the CA bundle, if there is one."""
    if _bundle(spec, settings) is None:
        return []
    return [{"name": "ca-bundle", "mountPath": CA_BUNDLE_DIRECTORY, "readOnly": True}]


def _bundle(spec: PodSpec, settings: PodSettings) -> CaBundle | None:
    return spec.pod.ca_bundle or settings.pod_defaults.ca_bundle
