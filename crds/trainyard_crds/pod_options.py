"""Options of pods: spec.pod. The chart has the same options as defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from trainyard_crds.common import DnsName, Rule, SecretKey, SpecModel, rules
from trainyard_crds.constants import (
    CA_BUNDLE_ENV,
    GPU_VISIBILITY_ENV,
    HUB_CACHE_ENV,
    KUBEFLOW_CA_ENV,
    KUBEFLOW_TOKEN_ENV,
    KUBEFLOW_URL_ENV,
    MANAGED_BY_LABEL,
    MASTER_ADDRESS_ENV,
    MASTER_PORT_ENV,
    NODE_NAME_ENV,
    NODE_RANK_ENV,
    NODES_ENV,
    POD_NAME_ENV,
    POD_UID_ENV,
    SCRATCH_DIRECTORIES,
    TERMINATION_LOG_ENV,
)

MAX_LABELS, MAX_VARIABLES, MAX_ANNOTATION = 32, 64, 4096
RESERVED_PREFIXES = ("trainyard.dev/", "batch.kubernetes.io/")
"""Prefixes of labels and annotations that Trainyard and the Job controller set."""
RESERVED_LABEL_PREFIXES = (*RESERVED_PREFIXES, "kueue.x-k8s.io/")
"""Kueue's labels follow from spec.queue."""
RESERVED_LABELS = (MANAGED_BY_LABEL, "job-name", "controller-uid")
RESERVED_VARIABLES = (
    *SCRATCH_DIRECTORIES,
    TERMINATION_LOG_ENV,
    KUBEFLOW_URL_ENV,
    KUBEFLOW_CA_ENV,
    KUBEFLOW_TOKEN_ENV,
    POD_UID_ENV,
    POD_NAME_ENV,
    NODE_NAME_ENV,
    NODES_ENV,
    NODE_RANK_ENV,
    MASTER_ADDRESS_ENV,
    MASTER_PORT_ENV,
    GPU_VISIBILITY_ENV,
    HUB_CACHE_ENV,
    CA_BUNDLE_ENV,
)
"""Variables that Trainyard sets in a trainer's container, or must be able to set."""

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/")


def is_qualified_name(key: str) -> bool:
    """Return whether a text is the key of a label or annotation: NAME or DOMAIN/NAME."""
    prefix = _PREFIX.match(key)
    return _NAME.fullmatch(key, prefix.end() if prefix else 0) is not None


def _qualified(keys: dict[str, str]) -> dict[str, str]:
    # The cost of CEL on the text of a map's keys is unbounded, so the API server cannot check it.
    for key in keys:
        if not is_qualified_name(key):
            raise ValueError(f"'{key}' is not a key of a label or annotation, for example team or example.com/team")
    return keys


def _unreserved(field: str, prefixes: Iterable[str], keys: Iterable[str] = ()) -> Rule[Any]:
    """Return a rule for a map that has none of the keys that Trainyard or Kubernetes sets."""
    tests = [*(f"k.startsWith('{prefix}')" for prefix in prefixes), *(f"k == '{key}'" for key in keys)]
    names = ", ".join([*(f"{prefix}*" for prefix in prefixes), *keys])
    return Rule(
        f"!self.exists(k, {' || '.join(tests)})",
        f"{field} may not have the keys {names}, which Trainyard and Kubernetes set; remove them",
    )


class ObjectName(SpecModel):
    """An object in the same namespace."""

    name: DnsName = Field(description="Name of the object, in the same namespace.")


class ConfigMapKey(SpecModel):
    """A key of a ConfigMap in the same namespace."""

    name: DnsName = Field(description="Name of the ConfigMap, in the same namespace.")
    key: str = Field(
        min_length=1,
        max_length=253,
        description="Key of the ConfigMap that holds the value.",
        json_schema_extra=rules(
            Rule(r"self.matches(r'^[-._a-zA-Z0-9]+$')", "must be a ConfigMap key: letters, digits, '-', '_' and '.'")
        ),
    )


class VariableSource(SpecModel):
    """Where the value of a variable is read from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "spec.pod.env[].valueFrom needs either secretKeyRef or configMapKeyRef",
            )
        )
    )

    secret_key_ref: SecretKey | None = Field(default=None, description="A key of a Secret. Default: none.")
    config_map_key_ref: ConfigMapKey | None = Field(default=None, description="A key of a ConfigMap. Default: none.")


class Variable(SpecModel):
    """An environment variable."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.value) != has(self.valueFrom)",
                "spec.pod.env[] needs either value or valueFrom",
            )
        )
    )

    name: str = Field(
        min_length=1,
        max_length=128,
        description="Name of the variable.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[A-Za-z_][A-Za-z0-9_]*$')",
                "must be a variable's name: letters, digits and '_', not a digit first",
            ),
            Rule(
                f"!(self in {list(RESERVED_VARIABLES)})",
                "is a variable that Trainyard sets itself; remove it. Directories, progress reports, the GPUs and the "
                "meeting of a gang's pods depend on it (docs/pods.md)",
            ),
        ),
    )
    value: str | None = Field(
        default=None,
        max_length=MAX_ANNOTATION,
        description="Value, which every reader of the object can see. Default: none, see valueFrom.",
    )
    value_from: VariableSource | None = Field(
        default=None, description="A Secret or ConfigMap with the value. Default: none, see value."
    )


class VariablesSource(SpecModel):
    """A Secret or ConfigMap whose keys are variables."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.secretRef) != has(self.configMapRef)",
                "spec.pod.envFrom[] needs either secretRef or configMapRef",
            )
        )
    )

    secret_ref: ObjectName | None = Field(default=None, description="A Secret. Default: none.")
    config_map_ref: ObjectName | None = Field(default=None, description="A ConfigMap. Default: none.")


class CaBundle(SpecModel):
    """A ConfigMap with the CAs that downloads trust."""

    name: DnsName = Field(
        description="Name of a ConfigMap in the same namespace with CA certificates (PEM). They replace "
        "those of the image: include the public ones if public servers are used too."
    )
    key: str = Field(
        default="ca.crt",
        min_length=1,
        max_length=253,
        description="Key of the ConfigMap.",
        json_schema_extra=rules(
            Rule(r"self.matches(r'^[-._a-zA-Z0-9]+$')", "must be a ConfigMap key: letters, digits, '-', '_' and '.'")
        ),
    )


class PodSecurity(SpecModel):
    """User and groups of the pods' processes; never root."""

    run_as_user: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="User ID. Default: the chart's training.securityContext."
    )
    run_as_group: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Group ID. Default: the chart's training.securityContext."
    )
    fs_group: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Group ID that owns the volumes. Default: the chart's training.securityContext.",
    )


LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
                "must be a label value: letters, digits, '-', '_' and '.', with a letter or digit first and last",
            )
        ),
    ),
]
Labels = Annotated[dict[str, LabelValue], Field(max_length=MAX_LABELS), AfterValidator(_qualified)]
AnnotationValue = Annotated[str, Field(max_length=MAX_ANNOTATION)]
Annotations = Annotated[dict[str, AnnotationValue], Field(max_length=MAX_LABELS), AfterValidator(_qualified)]
ClassName = Annotated[DnsName, Field(max_length=253)]


class PodOptions(SpecModel):
    """Options of the pods; training, export, check and serving pods have them unless a field says otherwise."""

    labels: Labels | None = Field(
        default=None,
        description="Additional labels of the pods and their Jobs, for example a cost centre. Default: those of the "
        "chart.",
        json_schema_extra=rules(_unreserved("spec.pod.labels", RESERVED_LABEL_PREFIXES, RESERVED_LABELS)),
    )
    annotations: Annotations | None = Field(
        default=None,
        description='Additional annotations of the pods and their Jobs, for example sidecar.istio.io/inject: "false". '
        "Default: those of the chart.",
        json_schema_extra=rules(_unreserved("spec.pod.annotations", RESERVED_PREFIXES)),
    )
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Image of a TrainingJob's pods, made from Trainyard's trainer image of the same version; of a "
        "ModelDeployment's engine, made from an image of vLLM. Default: the chart's.",
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[A-Za-z0-9][-A-Za-z0-9._:/@]*$')",
                "spec.pod.image must be an image reference, for example registry.example/trainer:1",
            )
        ),
    )
    image_pull_secrets: list[ObjectName] | None = Field(
        default=None,
        max_length=8,
        description="Secrets with credentials of registries. Default: those of the chart, and of the ServiceAccount.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    service_account_name: ClassName | None = Field(
        default=None,
        description="ServiceAccount of the pods, for example one with a cloud identity that may read the buckets of "
        "s3:// sources. Its API token is not mounted. Default: the chart's, else default.",
    )
    runtime_class_name: ClassName | None = Field(
        default=None,
        description="RuntimeClass of training and serving pods, for example nvidia; not of export and check pods, "
        "which run on the CPU. Default: the chart's, for pods with GPUs.",
    )
    priority_class_name: ClassName | None = Field(
        default=None,
        description="PriorityClass of the pods, by which the scheduler and the kubelet preempt; the order in the queue "
        "is spec.queue.priority. Default: the chart's, else the cluster's.",
    )
    scheduler_name: ClassName | None = Field(
        default=None, description="Scheduler of the pods. Default: the chart's, else the cluster's default-scheduler."
    )
    env: list[Variable] | None = Field(
        default=None,
        max_length=MAX_VARIABLES,
        description="Environment variables of training, export and serving pods, for example HF_ENDPOINT or a proxy. "
        "Default: those of the chart; these take precedence.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    env_from: list[VariablesSource] | None = Field(
        default=None,
        max_length=8,
        description="Secrets and ConfigMaps whose keys are environment variables of training, export and serving pods; "
        "variables of env and of Trainyard take precedence. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    ca_bundle: CaBundle | None = Field(
        default=None,
        description="CAs of the hub, of object storage and of web servers. Default: the chart's, else those of the "
        "image.",
    )
    security_context: PodSecurity | None = Field(
        default=None, description="User and groups of the pods. Default: those of the chart."
    )
