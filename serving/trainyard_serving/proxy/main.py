"""Wiring of the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

import aiohttp
from aiohttp import web

from trainyard_crds.serving import (
    ADAPTER_SET_FILE,
    ADAPTERS_DIRECTORY,
    DRAINED_FILE,
    ENGINE_PORT,
    PROXY_PORT,
    SERVING_CONFIG_FILE,
    STATUS_PORT,
    ServingConfig,
)
from trainyard_serving.proxy.adapters.adapter_file import AdapterFile
from trainyard_serving.proxy.adapters.checks import Unfit, check
from trainyard_serving.proxy.adapters.fetching import fetch
from trainyard_serving.proxy.adapters.manager import AdapterManager
from trainyard_serving.proxy.adapters.safetensors_shapes import DamagedFileError, Shapes, model_shapes
from trainyard_serving.proxy.drain import drain
from trainyard_serving.proxy.engine import Engine
from trainyard_serving.proxy.inference_app import Inference
from trainyard_serving.proxy.metrics import Metrics
from trainyard_serving.proxy.names import Names
from trainyard_serving.proxy.replica import Replica
from trainyard_serving.proxy.status_app import status_app

logger = logging.getLogger(__name__)

_PASS_SECONDS = 1.0
"""Seconds between two passes over the adapters."""
_CONNECTIONS = 1000
"""Requests to the engine at once; the engine queues them."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Files, ports and directories; the defaults are those of the pod.

    Attributes:
        config: The ServingConfig.
        adapter_set: The AdapterSet.
        adapters: Directory of the adapters.
        drained: File that lets the engine end.
        host: Address to listen on; None for all.
        port, status_port, engine_port: Ports of clients, of probes, and of the engine.
    """

    config: Path = Path(SERVING_CONFIG_FILE)
    adapter_set: Path = Path(ADAPTER_SET_FILE)
    adapters: Path = Path(ADAPTERS_DIRECTORY)
    drained: Path = Path(DRAINED_FILE)
    host: str | None = None
    port: int = PROXY_PORT
    status_port: int = STATUS_PORT
    engine_port: int = ENGINE_PORT

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Places:
        """Return the places that TRAINYARD_PROXY_* variables name; tests and a laptop have others than a pod."""
        default = cls()

        def text(name: str, otherwise: str) -> str:
            return environ.get(f"TRAINYARD_PROXY_{name}") or otherwise

        return cls(
            config=Path(text("CONFIG", str(default.config))),
            adapter_set=Path(text("ADAPTER_SET", str(default.adapter_set))),
            adapters=Path(text("ADAPTERS", str(default.adapters))),
            drained=Path(text("DRAINED", str(default.drained))),
            host=text("HOST", "") or None,
            port=int(text("PORT", str(default.port))),
            status_port=int(text("STATUS_PORT", str(default.status_port))),
            engine_port=int(text("ENGINE_PORT", str(default.engine_port))),
        )


def main() -> int:
    """Run the proxy until SIGTERM, then drain."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    places = Places.from_environment(os.environ)
    config = ServingConfig.model_validate_json(places.config.read_bytes())
    asyncio.run(run(config, places))
    return 0


async def run(config: ServingConfig, places: Places) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    places.drained.unlink(missing_ok=True)
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=30)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
        engine = Engine(session, f"http://127.0.0.1:{places.engine_port}", config.base_name)
        names = Names(config.base_name)
        adapters = AdapterManager(
            engine=engine,
            names=names,
            directory=places.adapters,
            fetch=fetch,
            check=partial(_check, config),
            clock=time.monotonic,
        )
        replica = Replica(engine, names, adapters, time.monotonic, lambda: datetime.now(UTC))
        metrics = Metrics(names)
        inference = Inference(replica, metrics)
        runners = [
            await _listen(inference.app(), places.host, places.port),
            await _listen(status_app(replica, metrics), places.host, places.status_port),
        ]
        work = asyncio.create_task(_keep_adapters(adapters, AdapterFile(places.adapter_set)))
        await stop.wait()
        await drain(replica, inference, places.drained, config.drain_seconds)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        for runner in runners:
            await runner.cleanup()


async def _keep_adapters(adapters: AdapterManager, file: AdapterFile) -> None:
    while True:
        try:
            await adapters.reconcile(file.read())
        except OSError as error:
            logger.warning("the adapters are left as they are for now: %s", error)
        await asyncio.sleep(_PASS_SECONDS)


async def _listen(app: web.Application, host: str | None, port: int) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=1024).start()
    return runner


def _check(config: ServingConfig, directory: Path) -> Unfit | int:
    shapes = _base_shapes(Path(config.model_path))
    return check(directory, shapes, config.max_adapter_rank, config.model.display)


@lru_cache(maxsize=1)
def _base_shapes(directory: Path) -> Shapes | None:
    """Return the shapes of the base model; None if they say nothing: its weights are quantised or cannot be read."""
    try:
        if "quantization_config" in (directory / "config.json").read_text(encoding="utf-8"):
            return None
        return model_shapes(directory) or None
    except (OSError, DamagedFileError) as error:
        logger.warning("the shapes of the base model cannot be read, so adapters are not compared with it: %s", error)
        return None
