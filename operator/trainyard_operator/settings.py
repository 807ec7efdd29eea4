"""Settings of the operator, from the environment."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from trainyard_operator.errors import SettingsError
from trainyard_operator.modeldeployment.model import ServingSettings
from trainyard_operator.pod_template.defaults import PodDefaults
from trainyard_operator.quantity import whole_units
from trainyard_operator.trainingjob.model import RenderSettings

BUILTIN: Final = "Builtin"
KUEUE: Final = "Kueue"
"""What admits jobs."""
_PREFIX = "TRAINYARD_"


def _quantity(text: str) -> str:
    whole_units(text)
    return text


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _from_commas(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _choice(*choices: str) -> Any:
    return Field(description=f"one of {', '.join(choices)}")


_A_NAME = "a Kubernetes name: lower-case letters, digits and '-'"
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description=_A_NAME)]
Port = Annotated[int, Field(ge=1, le=65_535, description="a TCP port from 1 to 65535")]
Quantity = Annotated[str, AfterValidator(_quantity), Field(description="a Kubernetes quantity, for example 100Gi")]
Texts = Annotated[
    dict[str, str],
    NoDecode,
    BeforeValidator(_from_json),
    Field(description='a JSON object of texts, for example {"NCCL_DEBUG": "INFO"}'),
]


class Settings(BaseSettings):
    """Settings of one operator process; an empty variable counts as unset.

    Attributes:
        namespace: The operator's own namespace: Lease, certificates, the gateway's Service.
        identity: This process among those that compete for the Lease; by default the host name, which is a pod's name.
        trainer_image: Image of the trainer.
        operator_image: The operator's own image, which serving pods and artifact readers use too.
        serving_gpu_image: Image of the serving engine for replicas with GPUs.
        serving_cpu_image: Image of the serving engine for replicas without.
            Without one such ModelDeployments need spec.pod.image.
        serving_environment: Additional variables of serving pods, by name.
        image_pull_policy: `imagePullPolicy` of the trainer's container.
        gateway_service: Name of the gateway's Service in the operator's namespace.
        gateway_port: Port of that Service.
        scratch_size: Size limit of a trainer's home directory.
        tmp_size: Size limit of a trainer's /tmp.
        ephemeral_storage: Ephemeral storage of trainer pods; None for no request and no limit.
        training_environment: Additional variables of training and export pods, by name.
        pod_defaults: Options of pods that a spec does not set.
        retention_seconds: Seconds after which finished TrainingJobs are deleted; None keeps them.
        watch_namespaces: Namespaces whose TrainingJobs this operator runs; empty for all.
        lease_name: Name of the Lease.
        health_port: Port of /healthz, /readyz and /metrics.
        kubeconfig: Kubeconfig file; None inside a cluster.
        log_level: Lowest level that is logged.
        queue_policy_file: JSON file with the policy of the builtin queue, read again when it changes.
        queue_mode: BUILTIN or KUEUE.
        local_queue: Under Kueue, the LocalQueue of jobs that name none.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, populate_by_name=True)

    namespace: Name
    identity: str = Field(default_factory=socket.gethostname)
    trainer_image: str = Field(description="the image of the trainer")
    operator_image: str = Field(description="the image of the operator")
    serving_gpu_image: str = ""
    serving_cpu_image: str = ""
    serving_environment: Texts = Field(default={}, validation_alias=f"{_PREFIX}SERVING_ENV")
    image_pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"], _choice("Always", "IfNotPresent", "Never")
    ] = "IfNotPresent"
    gateway_service: Name = "trainyard-gateway"
    gateway_port: Port = 8443
    scratch_size: Quantity = "100Gi"
    tmp_size: Quantity = "10Gi"
    ephemeral_storage: Quantity | None = None
    pod_defaults: Annotated[PodDefaults, NoDecode, BeforeValidator(_from_json)] = Field(
        default=PodDefaults(),
        description="a JSON object with the pod options of the chart's training block, names as in values.yaml",
    )
    training_environment: Texts = Field(default={}, validation_alias=f"{_PREFIX}TRAINING_ENV")
    retention_seconds: Annotated[int, Field(ge=60)] | None = Field(
        default=None, description="a number of seconds from 60, or unset it to keep finished TrainingJobs"
    )
    watch_namespaces: Annotated[tuple[Name, ...], NoDecode, BeforeValidator(_from_commas)] = Field(
        default=(), description="names of namespaces with commas between them, or unset it for all"
    )
    lease_name: Name = "trainyard-operator"
    health_port: Port = 8080
    kubeconfig: str | None = Field(default=None, validation_alias="KUBECONFIG")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], _choice("DEBUG", "INFO", "WARNING", "ERROR")] = (
        "INFO"
    )
    queue_policy_file: Path | None = Field(default=None, validation_alias=f"{_PREFIX}QUEUE_POLICY")
    queue_mode: Annotated[Literal["Builtin", "Kueue"], _choice(BUILTIN, KUEUE)] = BUILTIN
    local_queue: Name | None = Field(default=None, description=_A_NAME)

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Settings:
        """Refuse a setting of the queue that is not used."""
        unused: dict[str, Any] = (
            {"QUEUE_POLICY": self.queue_policy_file} if self.queue_mode == KUEUE else {"LOCAL_QUEUE": self.local_queue}
        )
        for name, value in unused.items():
            if value is not None:
                variable = f"{_PREFIX}{name}"
                raise ValueError(
                    f"{variable} is '{value}' and has no effect while TRAINYARD_QUEUE_MODE is {self.queue_mode}; "
                    "unset it."
                )
        return self

    @property
    def gateway_host(self) -> str:
        """Name under which pods reach the gateway."""
        return f"{self.gateway_service}.{self.namespace}.svc"

    @property
    def gateway_names(self) -> tuple[str, ...]:
        """Every DNS name of the gateway."""
        service, host = self.gateway_service, self.gateway_host
        return service, f"{service}.{self.namespace}", host, f"{host}.cluster.local"

    @property
    def render(self) -> RenderSettings:
        """The part that goes into children."""
        return RenderSettings(
            trainer_image=self.trainer_image,
            image_pull_policy=self.image_pull_policy,
            gateway_url=f"https://{self.gateway_host}:{self.gateway_port}",
            scratch_size=self.scratch_size,
            tmp_size=self.tmp_size,
            ephemeral_storage=self.ephemeral_storage,
            pod_defaults=self.pod_defaults,
            retention_seconds=self.retention_seconds,
            environment=self.training_environment,
        )

    @property
    def serving(self) -> ServingSettings:
        """The part that goes into the children of ModelDeployments."""
        return ServingSettings(
            gpu_image=self.serving_gpu_image,
            cpu_image=self.serving_cpu_image,
            proxy_image=self.operator_image,
            image_pull_policy=self.image_pull_policy,
            environment=self.serving_environment,
            pod_defaults=self.pod_defaults,
        )


def load() -> Settings:
    """Read the TRAINYARD_ variables and KUBECONFIG.

    Raises:
        SettingsError: a value is missing or cannot be used; names the variable, the value and what is expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_sentence(error.errors(include_url=False)[0])) from None


def _sentence(error: ErrorDetails) -> str:
    """Return what is wrong with one variable, and what is expected."""
    if not error["loc"]:
        return str(error["ctx"]["error"])
    name = str(error["loc"][0])
    field = Settings.model_fields.get(name)
    if field is None:
        field = next(one for one in Settings.model_fields.values() if one.validation_alias == name)
    variable = name if field.validation_alias else f"{_PREFIX}{name.upper()}"
    if error["type"] == "missing":
        return f"{variable} is not set; set it to {field.description}."
    return f"{variable} is '{os.environ.get(variable, error['input'])}'; set {field.description}."
