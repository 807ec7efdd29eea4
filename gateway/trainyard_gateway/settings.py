"""Settings from environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from trainyard_gateway.errors import SettingsError


def _port(default: int, variable: str) -> int:
    port: int = Field(default, ge=1, le=65_535, validation_alias=variable, description="a TCP port from 1 to 65535")
    return port


class Settings(BaseSettings):
    """Settings of one gateway process; a field's description is the value its variable accepts.

    Attributes:
        host: Address that all ports listen on.
        port: HTTPS port of the intake.
        api_port: HTTPS port of the REST API.
        health_port: HTTP port of /healthz, /readyz and /metrics.
        tls_directory: Directory with tls.crt and tls.key, as a mounted Secret has them.
        kubeconfig: Kubeconfig file; empty inside a cluster.
        log_level: Least severe level that is logged.
    """

    model_config = SettingsConfigDict(frozen=True, case_sensitive=True)

    host: str = Field("0.0.0.0", validation_alias="TRAINYARD_HOST")  # noqa: S104 - a pod serves its cluster
    port: int = _port(8443, "TRAINYARD_PORT")
    api_port: int = _port(8444, "TRAINYARD_API_PORT")
    health_port: int = _port(8080, "TRAINYARD_HEALTH_PORT")
    tls_directory: Path = Field(Path("/etc/trainyard/tls"), validation_alias="TRAINYARD_TLS_DIRECTORY")
    kubeconfig: str = Field("", validation_alias="KUBECONFIG")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="TRAINYARD_LOG_LEVEL", description="one of DEBUG, INFO, WARNING, ERROR"
    )

    @property
    def certificate(self) -> Path:
        """The serving certificate (chain), PEM."""
        return self.tls_directory / "tls.crt"

    @property
    def key(self) -> Path:
        """The serving certificate's private key, PEM."""
        return self.tls_directory / "tls.key"


def from_environment() -> Settings:
    """Read the settings of this process.

    Raises:
        SettingsError: a value cannot be used; names the variable, the value and what is expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        expected = {field.validation_alias: field.description for field in Settings.model_fields.values()}
        sentences = [
            f"{entry['loc'][0]} is '{entry['input']}'; set {expected[str(entry['loc'][0])]}."
            for entry in error.errors(include_url=False)
        ]
        raise SettingsError(" ".join(sentences)) from error
