"""What the environment configures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from trainyard_operator.errors import SettingsError
from trainyard_operator.quantity import whole_units
from trainyard_operator.trainingjob.model import RenderSettings

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
BUILTIN, KUEUE = "Builtin", "Kueue"
"""Who decides when a job starts."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class _Queue(TypedDict):
    queue_mode: str
    local_queue: str | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one operator process.

    Attributes:
        namespace: The operator's own namespace: Lease, certificates, the gateway's Service.
        identity: This process among those that compete for the Lease.
        trainer_image: Image of the trainer.
        image_pull_policy: `imagePullPolicy` of the trainer's container.
        gateway_service: Name of the gateway's Service in the operator's namespace.
        gateway_port: Port of that Service.
        scratch_size: Size limit of a trainer's home directory.
        training_environment: More variables of the training pods, by name.
        lease_name: Name of the Lease.
        health_port: Port of /healthz, /readyz and /metrics.
        kubeconfig: Kubeconfig file; None inside a cluster.
        log_level: Least severe level that is logged.
        queue_policy_file: JSON file with the queue's settings, read again when it changes; None for the defaults.
        queue_mode: BUILTIN or KUEUE.
        local_queue: Under Kueue, the LocalQueue of jobs that name none; None where they have to.
    """

    namespace: str
    identity: str
    trainer_image: str
    image_pull_policy: str
    gateway_service: str
    gateway_port: int
    scratch_size: str
    training_environment: Mapping[str, str]
    lease_name: str
    health_port: int
    kubeconfig: str | None
    log_level: str
    queue_policy_file: Path | None = None
    queue_mode: str = BUILTIN
    local_queue: str | None = None

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
            environment=self.training_environment,
        )


def from_environment(environment: Mapping[str, str], hostname: str) -> Settings:
    """Read the TRAINYARD_ variables and KUBECONFIG.

    Args:
        environment: The process's environment.
        hostname: Identity where TRAINYARD_IDENTITY is not set; a pod's is its name.

    Raises:
        SettingsError: a value is missing or cannot be used; names the variable, the value and what is expected.
    """
    return Settings(
        namespace=_name(environment, "TRAINYARD_NAMESPACE", None),
        identity=environment.get("TRAINYARD_IDENTITY") or hostname,
        trainer_image=_required(environment, "TRAINYARD_TRAINER_IMAGE", "the image of the trainer"),
        image_pull_policy=_one_of(environment, "TRAINYARD_IMAGE_PULL_POLICY", "IfNotPresent", _PULL_POLICIES),
        gateway_service=_name(environment, "TRAINYARD_GATEWAY_SERVICE", "trainyard-gateway"),
        gateway_port=_port(environment, "TRAINYARD_GATEWAY_PORT", "8443"),
        scratch_size=_quantity(environment, "TRAINYARD_SCRATCH_SIZE", "100Gi"),
        training_environment=_texts(environment, "TRAINYARD_TRAINING_ENV"),
        lease_name=_name(environment, "TRAINYARD_LEASE_NAME", "trainyard-operator"),
        health_port=_port(environment, "TRAINYARD_HEALTH_PORT", "8080"),
        kubeconfig=environment.get("KUBECONFIG") or None,
        log_level=_one_of(environment, "TRAINYARD_LOG_LEVEL", "INFO", _LOG_LEVELS),
        queue_policy_file=Path(text) if (text := environment.get("TRAINYARD_QUEUE_POLICY")) else None,
        **_queue(environment),
    )


def _queue(environment: Mapping[str, str]) -> _Queue:
    """Who decides when a job starts; what the other one alone understands is refused."""
    mode = _one_of(environment, "TRAINYARD_QUEUE_MODE", BUILTIN, (BUILTIN, KUEUE))
    foreign = "TRAINYARD_QUEUE_POLICY" if mode == KUEUE else "TRAINYARD_LOCAL_QUEUE"
    if environment.get(foreign):
        raise SettingsError(
            f"{foreign} is '{environment[foreign]}' and has no effect while TRAINYARD_QUEUE_MODE is {mode}; unset it."
        )
    named = environment.get("TRAINYARD_LOCAL_QUEUE")
    return {
        "queue_mode": mode,
        "local_queue": _name(environment, "TRAINYARD_LOCAL_QUEUE", None) if named else None,
    }


def _required(environment: Mapping[str, str], variable: str, what: str) -> str:
    value = environment.get(variable, "")
    if not value:
        raise SettingsError(f"{variable} is not set; set it to {what}.")
    return value


def _name(environment: Mapping[str, str], variable: str, default: str | None) -> str:
    value = environment.get(variable) or default or _required(environment, variable, "a Kubernetes name")
    if not _NAME.fullmatch(value):
        raise SettingsError(f"{variable} is '{value}'; set a Kubernetes name: lower-case letters, digits and '-'.")
    return value


def _one_of(environment: Mapping[str, str], variable: str, default: str, allowed: tuple[str, ...]) -> str:
    value = environment.get(variable) or default
    if value not in allowed:
        raise SettingsError(f"{variable} is '{value}'; set one of {', '.join(allowed)}.")
    return value


def _port(environment: Mapping[str, str], variable: str, default: str) -> int:
    text = environment.get(variable) or default
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise SettingsError(f"{variable} is '{text}'; set a TCP port from 1 to 65535.")
    return int(text)


def _texts(environment: Mapping[str, str], variable: str) -> dict[str, str]:
    text = environment.get(variable) or "{}"
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise SettingsError(
            f'{variable} is \'{text}\'; set a JSON object of texts, for example {{"NCCL_DEBUG": "INFO"}}.'
        )
    return found


def _quantity(environment: Mapping[str, str], variable: str, default: str) -> str:
    text = environment.get(variable) or default
    try:
        whole_units(text)
    except ValueError as error:
        raise SettingsError(f"{variable}: {error}.") from error
    return text
