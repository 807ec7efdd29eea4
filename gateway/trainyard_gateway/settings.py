"""Settings of the gateway, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from trainyard_gateway.errors import SettingsError

_PREFIX = "TRAINYARD_"
Port = Annotated[int, Field(ge=1, le=65_535, description="a TCP port from 1 to 65535")]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="one of DEBUG, INFO, WARNING, ERROR")
]


class Settings(BaseSettings):
    """Settings of one gateway process; an empty variable counts as unset.

    Attributes:
        host: Address that all ports listen on; None for every address, IPv4 and IPv6.
        port: HTTPS port of the intake.
        api_port: HTTPS port of the REST API.
        activator_port: HTTP port that stands in for ModelDeployments which are scaled to zero.
        health_port: HTTP port of /healthz, /readyz and /metrics.
        tls_directory: Directory with tls.crt and tls.key, as a mounted Secret has them.
        kubeconfig: Kubeconfig file; None inside a cluster.
        log_level: Lowest level that is logged.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True)

    host: str | None = None
    port: Port = 8443
    api_port: Port = 8444
    activator_port: Port = 8445
    health_port: Port = 8080
    tls_directory: Path = Path("/etc/trainyard/tls")
    kubeconfig: str | None = Field(default=None, validation_alias="KUBECONFIG")
    log_level: LogLevel = "INFO"

    @property
    def certificate(self) -> Path:
        """The serving certificate (chain), PEM."""
        return self.tls_directory / "tls.crt"

    @property
    def key(self) -> Path:
        """The serving certificate's private key, PEM."""
        return self.tls_directory / "tls.key"


def load() -> Settings:
    """Read the TRAINYARD_ variables and KUBECONFIG.

    Raises:
        SettingsError: a value cannot be used; names the variable, the value and what is expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(" ".join(map(_sentence, error.errors(include_url=False)))) from None


def _sentence(error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    return f"{_PREFIX}{name.upper()} is '{error['input']}'; set {Settings.model_fields[name].description}."
