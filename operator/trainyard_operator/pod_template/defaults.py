"""Defaults of pod options, from the chart: they go into new Jobs and never into a spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from trainyard_crds.common import SpecModel
from trainyard_crds.pod_options import (
    RESERVED_LABEL_PREFIXES,
    RESERVED_LABELS,
    RESERVED_PREFIXES,
    Annotations,
    CaBundle,
    Labels,
    ObjectName,
    PodSecurity,
)

_USER = 1000
"""User and group of the trainer image."""


class PodDefaults(SpecModel):
    """Options of the pods of all jobs; an empty value counts as unset.

    Attributes:
        labels: Additional labels of Jobs and pods.
        annotations: Additional annotations of Jobs and pods.
        propagate_labels: Keys of TrainingJob labels that Jobs and pods get too; `PREFIX*` matches every key with it.
        propagate_annotations: The same for annotations.
        image_pull_secrets: Secrets with credentials of registries, in the namespace of each job.
        service_account_name: ServiceAccount of pods.
        runtime_class_name: RuntimeClass of pods with GPUs.
        priority_class_name: PriorityClass of pods.
        scheduler_name: Scheduler of pods.
        ca_bundle: ConfigMap with CAs, in the namespace of each job.
        security_context: User and groups of pods; unset ones are left to the cluster.
    """

    labels: Labels = Field(default={})
    annotations: Annotations = Field(default={})
    propagate_labels: tuple[str, ...] = ()
    propagate_annotations: tuple[str, ...] = ()
    image_pull_secrets: tuple[ObjectName, ...] = ()
    service_account_name: str | None = None
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    scheduler_name: str | None = None
    ca_bundle: CaBundle | None = None
    security_context: PodSecurity = PodSecurity(run_as_user=_USER, run_as_group=_USER, fs_group=_USER)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # An empty security context means that the cluster chooses the user (OpenShift).
        empty = ("", None, {"name": ""})
        return {key: value for key, value in values.items() if value not in empty}

    @field_validator("ca_bundle", mode="before")
    @classmethod
    def _no_bundle_without_name(cls, value: Any) -> Any:
        return None if isinstance(value, dict) and not value.get("name") else value

    @field_validator("labels")
    @classmethod
    def _labels_are_free(cls, labels: dict[str, str]) -> dict[str, str]:
        return _free(labels, is_reserved_label, "label")

    @field_validator("annotations")
    @classmethod
    def _annotations_are_free(cls, annotations: dict[str, str]) -> dict[str, str]:
        return _free(annotations, is_reserved_annotation, "annotation")


def _free(entries: dict[str, str], is_reserved: Any, kind: str) -> dict[str, str]:
    for key in entries:
        if is_reserved(key):
            raise ValueError(f"the {kind} '{key}' is set by Trainyard or Kubernetes; remove it")
    return entries


def is_reserved_label(key: str) -> bool:
    """Return whether Trainyard, Kubernetes or Kueue sets a label."""
    return key in RESERVED_LABELS or key.startswith(RESERVED_LABEL_PREFIXES)


def is_reserved_annotation(key: str) -> bool:
    """Return whether Trainyard or Kubernetes sets an annotation."""
    return key.startswith(RESERVED_PREFIXES)


def allowed(entries: Mapping[str, str], allow_list: Iterable[str]) -> dict[str, str]:
    """Return the labels or annotations whose key an allow-list has, or matches with `PREFIX*`."""
    exact = {entry for entry in allow_list if not entry.endswith("*")}
    prefixes = tuple(entry[:-1] for entry in allow_list if entry.endswith("*"))
    return {key: value for key, value in entries.items() if key in exact or key.startswith(prefixes)}
