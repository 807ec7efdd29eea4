"""Settings of the artifact reader, from environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard_crds.serving import READER_IDLE_SECONDS, READER_PORT, READER_SECRETS, READER_VOLUME


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the artifact reader.

    Attributes:
        host: Address to listen on; None for all.
        port: Port.
        secrets: Directory with the serving certificate, and with what verifies tokens.
        volume: Where the claim is mounted.
        idle_seconds: Seconds without a request after which the reader ends.
    """

    host: str | None = None
    port: int = READER_PORT
    secrets: Path = Path(READER_SECRETS)
    volume: Path = Path(READER_VOLUME)
    idle_seconds: float = READER_IDLE_SECONDS

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings: the defaults, as in a pod, where a variable is not set."""
        return cls(
            host=environ.get("TRAINYARD_READER_HOST"),
            port=int(environ.get("TRAINYARD_READER_PORT", READER_PORT)),
            secrets=Path(environ.get("TRAINYARD_READER_SECRETS", READER_SECRETS)),
            volume=Path(environ.get("TRAINYARD_READER_VOLUME", READER_VOLUME)),
            idle_seconds=float(environ.get("TRAINYARD_READER_IDLE", READER_IDLE_SECONDS)),
        )
