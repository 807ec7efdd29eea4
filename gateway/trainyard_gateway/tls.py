"""The serving certificate: loaded from files and reloaded when they change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from trainyard_gateway.errors import SettingsError

logger = logging.getLogger(__name__)

_POLL_SECONDS = 10.0


class ServingCertificate:
    """SSL context that reloads its certificate from two files.

    Args:
        certificate: The certificate chain, PEM.
        key: Its private key, PEM.

    Raises:
        SettingsError: the files are missing or not a pair.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._content = self._read()
            self._load(self.context)
        except OSError as error:  # ssl.SSLError is one
            remedy = "The operator creates the Secret; see its log for the cause."
            raise SettingsError(f"The serving certificate {certificate} cannot be used: {error}. {remedy}") from error

    def refresh(self) -> bool:
        """Reload the files if they changed; new connections get the new certificate.

        Returns:
            Whether a new certificate was loaded. Files that are not a pair (half written) are retried later.
        """
        try:
            content = self._read()
            if content == self._content:
                return False
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except OSError as error:
            logger.warning("the new serving certificate cannot be used, keeping the old one: %s", error)
            return False
        self._content = content
        logger.info("the serving certificate was renewed")
        return True

    async def watch(self) -> None:
        """Poll the files every few seconds; never return."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            self.refresh()

    def _read(self) -> tuple[bytes, bytes]:
        return self._certificate.read_bytes(), self._key.read_bytes()

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._certificate, self._key)
