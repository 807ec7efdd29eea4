"""Asks the proxies of replicas for their state."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable

import aiohttp
from pydantic import ValidationError

from trainyard_crds.serving import STATE_PATH, STATUS_PORT, ReplicaState

logger = logging.getLogger(__name__)

_SECONDS = 2.0
_BYTES = 1 << 20


class ReplicaStates:
    """Client of the status port of replicas.

    Args:
        base_url: Returns the URL of the status port of the pod with an address.
    """

    def __init__(self, base_url: Callable[[str], str] | None = None) -> None:
        self._base_url = base_url or _base_url
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, address: str) -> ReplicaState | None:
        """Return what the proxy of the pod with an address reports; None if it does not answer."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        try:
            async with self._session.get(f"{self._base_url(address)}{STATE_PATH}", allow_redirects=False) as answer:
                text = await answer.content.read(_BYTES)
                return ReplicaState.model_validate_json(text) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValidationError, OSError) as error:
            logger.info("the replica at %s does not report its state: %s", address, error)
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _base_url(address: str) -> str:
    host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    return f"http://{host}:{STATUS_PORT}"
