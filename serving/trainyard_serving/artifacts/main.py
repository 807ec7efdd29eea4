"""Wiring of the artifact reader."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import time

from aiohttp import web

from trainyard_crds.serving import READER_ACCESS_FILE, ReaderAccess
from trainyard_serving.artifacts.app import artifacts_app
from trainyard_serving.artifacts.idle import IdleTimer
from trainyard_serving.artifacts.settings import Settings
from trainyard_serving.artifacts.tokens import Tokens
from trainyard_serving.artifacts.volume import Volume

logger = logging.getLogger(__name__)

_ANSWERS_SECONDS = 5.0
"""Seconds for which requests that are being answered at the end may go on."""


def main() -> int:
    """Serve until nothing was read for a while, or until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.read(os.environ)
    tokens = Tokens(ReaderAccess.model_validate_json((settings.secrets / READER_ACCESS_FILE).read_bytes()))
    idle = IdleTimer(settings.idle_seconds, time.monotonic)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.secrets / "tls.crt", settings.secrets / "tls.key")
    asyncio.run(_serve(artifacts_app(Volume(settings.volume), tokens, idle), context, settings, idle))
    return 0


async def _serve(app: web.Application, context: ssl.SSLContext, settings: Settings, idle: IdleTimer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_ANSWERS_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port, ssl_context=context).start()
    logger.info("serving the runs in %s on port %d", settings.volume, settings.port)
    while not stop.is_set() and idle.left > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(idle.left):
                await stop.wait()
    logger.info("ending: %s", "SIGTERM" if stop.is_set() else "nothing was read for a while")
    await runner.cleanup()
