"""Wiring of the artifact reader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import ssl
import time
from pathlib import Path

from aiohttp import web

from trainyard_crds.serving import READER_IDLE_SECONDS, READER_PORT, READER_VOLUME
from trainyard_serving.artifacts.app import artifacts_app
from trainyard_serving.artifacts.idle import IdleTimer
from trainyard_serving.artifacts.tokens import Tokens
from trainyard_serving.artifacts.volume import Volume

logger = logging.getLogger(__name__)

SECRETS = Path("/etc/trainyard/artifacts")
"""Mounted Secret: tls.crt, tls.key, and access.json with `keys`, `issuer`, `namespace` and `others`."""


def main() -> int:
    """Serve until nothing was read for a while, or until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    secrets = Path(os.environ.get("TRAINYARD_READER_SECRETS", SECRETS))
    access = json.loads((secrets / "access.json").read_bytes())
    tokens = Tokens(
        keys=access["keys"],
        issuer=access["issuer"],
        namespace=access["namespace"],
        others=frozenset(access.get("others", ())),
    )
    volume = Volume(Path(os.environ.get("TRAINYARD_READER_VOLUME", READER_VOLUME)))
    idle = IdleTimer(float(os.environ.get("TRAINYARD_READER_IDLE", READER_IDLE_SECONDS)), time.monotonic)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(secrets / "tls.crt", secrets / "tls.key")
    port = int(os.environ.get("TRAINYARD_READER_PORT", READER_PORT))
    asyncio.run(_serve(artifacts_app(volume, tokens, idle), context, port, idle))
    return 0


async def _serve(app: web.Application, context: ssl.SSLContext, port: int, idle: IdleTimer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, None, port, ssl_context=context).start()
    while not stop.is_set() and idle.left > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(idle.left):
                await stop.wait()
    logger.info("ending: %s", "SIGTERM" if stop.is_set() else "nothing was read for a while")
    await runner.cleanup()
