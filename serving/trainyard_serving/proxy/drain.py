"""The end of a replica: requests in flight finish; then a file lets the engine end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from trainyard_serving.proxy.inference_app import Inference
from trainyard_serving.proxy.replica import Replica

PROPAGATION_SECONDS = 5.0
"""Seconds for which new requests are still answered: the Service is withdrawn on all nodes meanwhile."""


async def drain(
    replica: Replica,
    inference: Inference,
    drained: Path,
    seconds: float,
    *,
    propagation: float = PROPAGATION_SECONDS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """End the replica.

    Args:
        replica: The replica.
        inference: Its port for clients.
        drained: File that lets the engine end.
        seconds: Longest wait for requests in flight; the rest is cut off.
        propagation: Seconds for which new requests are still answered.
        sleep: Waits.
    """
    replica.draining = True
    await sleep(min(propagation, seconds))
    inference.close()
    try:
        async with asyncio.timeout(max(0.0, seconds - propagation)):
            await replica.names.wait_landed()
    except TimeoutError:
        inference.cut()
    await asyncio.to_thread(drained.touch)
