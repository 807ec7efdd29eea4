"""Fetches an adapter in a process of its own: the libraries of hub and storage take memory while it runs only."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pydantic import ValidationError

from trainyard_crds.serving import Artifact, FetchFailure

_PROGRAM = (sys.executable, "-m", "trainyard_serving", "fetch-adapter")


class FetchError(Exception):
    """The files could not be fetched.

    Attributes:
        failure: Why.
    """

    def __init__(self, failure: FetchFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


async def fetch(artifact: Artifact, target: Path) -> None:
    """Fetch an adapter into a directory, which exists afterwards.

    Raises:
        FetchError: it could not be fetched.
    """
    if await asyncio.to_thread(target.is_dir):
        return
    process = await asyncio.create_subprocess_exec(
        *_PROGRAM, str(target), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate(artifact.model_dump_json(by_alias=True).encode())
    except asyncio.CancelledError:
        process.terminate()
        raise
    if process.returncode:
        raise FetchError(_failure(output.decode(errors="replace"), process.returncode))


def _failure(output: str, code: int) -> FetchFailure:
    try:
        return FetchFailure.model_validate_json(output.strip().rpartition("\n")[2])
    except ValidationError:
        return FetchFailure(reason="FetchFailed", message=f"The fetching process ended with exit code {code}.")
