"""The read-only port for probes, the operator and Prometheus."""

from __future__ import annotations

from aiohttp import web

from trainyard_crds.serving import LIVE_PATH, METRICS_PATH, READY_PATH, STARTED_PATH, STATE_PATH
from trainyard_serving.proxy.metrics import Metrics
from trainyard_serving.proxy.replica import Replica


def status_app(replica: Replica, metrics: Metrics) -> web.Application:
    """Return the application of the status port."""

    async def started(_: web.Request) -> web.Response:
        return _answer(await replica.has_started(), "the engine has not started")

    async def live(_: web.Request) -> web.Response:
        return _answer(await replica.is_alive(), "the engine does not complete a token in time")

    async def ready(_: web.Request) -> web.Response:
        return _answer(replica.is_ready(), "the model or an adapter does not answer yet, or the replica is ending")

    async def state(_: web.Request) -> web.Response:
        document = replica.state().model_dump_json(by_alias=True, exclude_none=True)
        return web.Response(text=document, content_type="application/json")

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(text=metrics.text(await replica.engine.metrics()))

    app = web.Application()
    app.router.add_get(STARTED_PATH, started)
    app.router.add_get(LIVE_PATH, live)
    app.router.add_get(READY_PATH, ready)
    app.router.add_get(STATE_PATH, state)
    app.router.add_get(METRICS_PATH, show_metrics)
    return app


def _answer(holds: bool, otherwise: str) -> web.Response:
    return web.Response(text="ok") if holds else web.Response(status=503, text=otherwise)
