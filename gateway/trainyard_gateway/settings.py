"""What the environment configures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard_gateway.errors import SettingsError

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one gateway process.

    Attributes:
        host: Address both ports listen on.
        port: HTTPS port of the intake.
        health_port: HTTP port of /healthz, /readyz and /metrics.
        tls_directory: Folder with tls.crt and tls.key, as a mounted Secret has them.
        kubeconfig: Kubeconfig file; None inside a cluster.
        log_level: Least severe level that is logged.
    """

    host: str
    port: int
    health_port: int
    tls_directory: Path
    kubeconfig: str | None
    log_level: str

    @property
    def certificate(self) -> Path:
        """The serving certificate (chain), PEM."""
        return self.tls_directory / "tls.crt"

    @property
    def key(self) -> Path:
        """The serving certificate's private key, PEM."""
        return self.tls_directory / "tls.key"


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read TRAINYARD_HOST, _PORT, _HEALTH_PORT, _TLS_DIRECTORY, _LOG_LEVEL and KUBECONFIG.

    Raises:
        SettingsError: a value cannot be used; names the variable, the value and what is expected.
    """
    level = environment.get("TRAINYARD_LOG_LEVEL", "INFO")
    if level not in _LOG_LEVELS:
        raise SettingsError(f"TRAINYARD_LOG_LEVEL is '{level}'; set one of {', '.join(_LOG_LEVELS)}.")
    return Settings(
        host=environment.get("TRAINYARD_HOST", "0.0.0.0"),  # noqa: S104 - a pod serves its cluster
        port=_port(environment, "TRAINYARD_PORT", "8443"),
        health_port=_port(environment, "TRAINYARD_HEALTH_PORT", "8080"),
        tls_directory=Path(environment.get("TRAINYARD_TLS_DIRECTORY", "/etc/trainyard/tls")),
        kubeconfig=environment.get("KUBECONFIG") or None,
        log_level=level,
    )


def _port(environment: Mapping[str, str], variable: str, default: str) -> int:
    text = environment.get(variable, default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise SettingsError(f"{variable} is '{text}'; set a TCP port from 1 to 65535.")
    return int(text)
