"""The engine on this pod's loopback: health, models, adapters, a probe."""

from __future__ import annotations

import asyncio
import json

import aiohttp

_QUICK = aiohttp.ClientTimeout(total=3)
_LOAD = aiohttp.ClientTimeout(total=300)


class EngineError(Exception):
    """The engine refused or failed.

    Attributes:
        status: HTTP status; 0 if it did not answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """Client of the engine.

    Args:
        session: HTTP client without limits of its own.
        url: Its URL.
        base: Name of the base model.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, base: str) -> None:
        self.session, self.url, self.base = session, url, base

    async def models(self) -> set[str] | None:
        """Return the names of all loaded models and adapters; None while the engine does not answer."""
        try:
            async with self.session.get(f"{self.url}/v1/models", timeout=_QUICK) as answer:
                if answer.status != 200:
                    return None
                return {str(entry["id"]) for entry in (await answer.json())["data"]}
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return None

    async def load(self, name: str, path: str) -> None:
        """Load an adapter; one of that name that is loaded already counts as loaded.

        Raises:
            EngineError: the engine refused it.
        """
        status, text = await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
        if status != 200 and "already been loaded" not in text and "already loaded" not in text:
            raise EngineError(_message(text), status)

    async def unload(self, name: str) -> None:
        """Unload an adapter; one that is not loaded counts as unloaded.

        Raises:
            EngineError: the engine failed.
        """
        status, text = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if status not in (200, 404):
            raise EngineError(_message(text), status)

    async def complete(self, seconds: float) -> bool:
        """Return whether the base model completes one token in time: a hang shows in nothing else."""
        body = {"model": self.base, "prompt": "a", "max_tokens": 1, "temperature": 0}
        try:
            async with asyncio.timeout(seconds):
                status, _text = await self._post("/v1/completions", body)
        except (EngineError, TimeoutError):
            return False
        return status == 200

    async def metrics(self) -> str:
        """Return the engine's metrics as text; empty while it does not answer."""
        try:
            async with self.session.get(f"{self.url}/metrics", timeout=_QUICK) as answer:
                return await answer.text() if answer.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    async def _post(self, path: str, body: dict[str, object]) -> tuple[int, str]:
        try:
            async with self.session.post(f"{self.url}{path}", json=body, timeout=_LOAD) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineError(f"The engine does not answer: {str(error) or type(error).__name__}") from error


def _message(text: str) -> str:
    """Return the sentence in the engine's answer."""
    try:
        found = json.loads(text)
    except ValueError:
        return text[:500]
    error = found.get("error", found) if isinstance(found, dict) else found
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]
