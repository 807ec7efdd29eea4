"""Settings, time, throttling, health, and the watch's way into the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kopf
import pytest
from yarl import URL

from tests.unit.timeouts import PATIENCE
from trainyard_operator import clock
from trainyard_operator.admission.inventory_feed import GpuFeed
from trainyard_operator.clock import ServerClock
from trainyard_operator.errors import ConflictError, LeadershipLostError, ServerError, SettingsError, refused
from trainyard_operator.health import Heartbeat
from trainyard_operator.kube.client import CONFIG_MAPS, PODS, Kube, path
from trainyard_operator.kube.login import Login, Pacer
from trainyard_operator.kube.store import Key, ResourceKind, Store
from trainyard_operator.kube.throttle import TokenBucket
from trainyard_operator.kube.watch import Watch
from trainyard_operator.metrics import Metrics, State
from trainyard_operator.quantity import whole_units
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.quota import Quotas
from trainyard_operator.settings import from_environment

MINIMAL = {"TRAINYARD_NAMESPACE": "system", "TRAINYARD_TRAINER_IMAGE": "trainer:1"}


def test_the_defaults_make_a_gateway_url() -> None:
    settings = from_environment(MINIMAL, "pod-1")
    assert settings.render.gateway_url == "https://trainyard-gateway.system.svc:8443"
    assert settings.identity == "pod-1"
    assert "trainyard-gateway.system.svc" in settings.gateway_names


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"TRAINYARD_NAMESPACE": ""}, "TRAINYARD_NAMESPACE is not set"),
        ({"TRAINYARD_TRAINER_IMAGE": ""}, "TRAINYARD_TRAINER_IMAGE is not set; set it to the image of the trainer"),
        ({"TRAINYARD_IMAGE_PULL_POLICY": "Maybe"}, "is 'Maybe'; set one of Always, IfNotPresent, Never"),
        ({"TRAINYARD_HEALTH_PORT": "70000"}, "TRAINYARD_HEALTH_PORT is '70000'; set a TCP port from 1 to 65535"),
        ({"TRAINYARD_GATEWAY_SERVICE": "A_B"}, "TRAINYARD_GATEWAY_SERVICE is 'A_B'; set a Kubernetes name"),
        ({"TRAINYARD_SCRATCH_SIZE": "big"}, "'big' is no Kubernetes quantity"),
        ({"TRAINYARD_LOG_LEVEL": "LOUD"}, "TRAINYARD_LOG_LEVEL is 'LOUD'"),
    ],
)
def test_a_setting_that_cannot_work_is_named(change: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        from_environment({**MINIMAL, **change}, "pod-1")


@pytest.mark.parametrize(("text", "units"), [("500m", 1), ("2", 2), ("1.5Gi", 1610612736), ("3k", 3000)])
def test_quantities(text: str, units: int) -> None:
    assert whole_units(text) == units


def test_the_servers_time_is_kept_within_what_its_answers_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    server = ServerClock()
    server.observe("Fri, 02 Jan 2026 10:00:00 GMT", 100.0)
    assert server.now() == datetime(2026, 1, 2, 10, 0, 0, tzinfo=UTC)
    now[0] = 130.5
    assert server.now() == datetime(2026, 1, 2, 10, 0, 30, 500000, tzinfo=UTC)
    server.observe("Fri, 02 Jan 2026 10:00:30 GMT", 130.5)
    assert server.now() == datetime(2026, 1, 2, 10, 0, 30, 500000, tzinfo=UTC)
    server.observe("Fri, 02 Jan 2026 11:00:30 GMT", 130.5)
    assert server.now() == datetime(2026, 1, 2, 11, 0, 30, tzinfo=UTC)
    server.observe("nonsense", 130.5)


async def test_a_bucket_lets_a_burst_through_and_then_keeps_its_rate() -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    bucket = TokenBucket(10, 3, lambda: now[0], sleep)
    for _ in range(3):
        await bucket.take()
    assert now[0] == 0
    for _ in range(10):
        await bucket.take()
    assert now[0] == pytest.approx(1.0)
    bucket.pause(5)
    await bucket.take()
    assert now[0] == pytest.approx(6.0)


async def test_watches_of_one_resource_are_a_second_apart_whatever_the_others_do() -> None:
    now, waited = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    pacer = Pacer(lambda: now[0], sleep)
    await pacer.wait("pods")
    await pacer.wait("jobs")
    assert waited == []
    await pacer.wait("pods")
    await pacer.wait("pods")
    assert waited == [1.0, 2.0]
    now[0] = 10.0
    await pacer.wait("pods")
    assert waited == [1.0, 2.0]


async def test_the_login_gives_new_credentials_and_never_those_that_were_refused(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"

    def write(token: str) -> None:
        document = {
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        kubeconfig.write_text(json.dumps(document))

    async def sleep(_: float) -> None:
        return

    login, told = Login(str(kubeconfig), Pacer(lambda: 0.0, sleep), print), {"settings": kopf.OperatorSettings()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        for token in ("first", "second"):
            write(token)
            session = await login.session(**told)
            assert session is not None
            assert session.aiohttp_session.headers["Authorization"] == f"Bearer {token}"
            assert await login.session(**told) is None
            await session.aiohttp_session.close()


async def test_lists_are_told_of_and_watches_are_not() -> None:
    async def sleep(_: float) -> None:
        return

    async def answer(_: Any) -> Any:
        return "answer"

    listed: list[str] = []
    login = Login(None, Pacer(lambda: 0.0, sleep), listed.append)
    for url in ("https://api/api/v1/pods?limit=500", "https://api/api/v1/pods?watch=true"):
        request: Any = SimpleNamespace(url=URL(url))
        got: Any = await login._pace(request, answer)
        assert got == "answer"
    assert listed == ["/api/v1/pods"]


class Silent:
    """An API client that is never reached."""

    async def param_serialize(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a request was made")


async def test_a_leader_whose_lease_is_old_does_not_write() -> None:
    kube = Kube(Silent(), ServerClock())

    def check() -> None:
        raise LeadershipLostError("old")

    kube.fence(check)
    for write in (kube.create, kube.replace, kube.merge, kube.apply):
        with pytest.raises(LeadershipLostError):
            await write("/api/v1/x", {})
    with pytest.raises(LeadershipLostError):
        await kube.delete("/api/v1/x")
    with pytest.raises(AssertionError, match="was made"):
        await kube.get("/api/v1/x")


def test_an_http_status_has_its_error() -> None:
    assert isinstance(refused(409, "Conflict", "m"), ConflictError)
    assert isinstance(refused(503, "", "m"), ServerError)
    assert str(refused(418, "", "short and stout")) == "418: short and stout"


def test_paths_are_quoted() -> None:
    assert path(PODS, "team", "a", "log") == "/api/v1/namespaces/team/pods/a/log"
    assert path(CONFIG_MAPS) == "/api/v1/configmaps"
    assert path(PODS, "a/b", "../c") == "/api/v1/namespaces/a%2Fb/pods/..%2Fc"


def event(kind: str | None, version: int = 1, **metadata: Any) -> dict[str, Any]:
    known = {"name": "tune", "namespace": "team", "uid": "u1", "resourceVersion": str(version)}
    return {"type": kind, "object": {"metadata": known | metadata, "spec": {}}}


def feed() -> GpuFeed:
    kube: Any = None  # never asked
    return GpuFeed(kube, Inventory(), Quotas(), lambda: None)


def a_watch(store: Store, **told: Callable[[Any], None]) -> Watch:
    """One that tells nobody but those that are named."""
    nobody = dict.fromkeys(("add", "echoed", "relisted"), lambda _: None)
    return Watch(store, **(nobody | told), clock=lambda: 5.0, gpus=feed())


def test_what_is_known_already_is_no_news() -> None:
    store, added, echoed = Store(), list[Key](), list[Key]()
    watch = a_watch(store, add=added.append, echoed=echoed.append)
    store.put(ResourceKind.TRAINING_JOBS, event("MODIFIED", 4)["object"])
    for version in (3, 4, 5):
        watch.handle(ResourceKind.TRAINING_JOBS, event("MODIFIED", version))
    assert (echoed, added) == ([Key("team", "tune")] * 2, [Key("team", "tune")])
    watch.handle(ResourceKind.TRAINING_JOBS, event("DELETED", 5))
    assert len(added) == 2


def test_events_reach_store_and_queue_and_a_list_even_an_empty_one_asks_for_a_resync() -> None:
    store, added, relisted = Store(), list[Key](), list[ResourceKind]()
    watch = a_watch(store, add=added.append, relisted=relisted.append)
    watch.handle(ResourceKind.TRAINING_JOBS, event("ADDED"))
    watch.handle(ResourceKind.TRAINING_JOBS, event(None, 2))
    watch.handle(ResourceKind.TRAINING_JOBS, event("DELETED", 3))
    assert relisted == []
    watch.listed("/apis/trainyard.dev/v1alpha1/trainingjobs")
    watch.listed("/apis/trainyard.dev/v1alpha1")
    assert (added, relisted) == ([Key("team", "tune")] * 3, [ResourceKind.TRAINING_JOBS])
    assert (store.all_keys(), watch.last_event) == ([], {ResourceKind.TRAINING_JOBS: 5.0})


def test_an_event_that_cannot_be_read_is_logged_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    watch = a_watch(Store())
    watch.handle(ResourceKind.PODS, {"type": "ADDED", "object": {}})
    assert "could not be read" in caplog.text


async def test_a_late_event_loop_is_unhealthy() -> None:
    times = iter([0.0, 9.0])
    heartbeat = Heartbeat(lambda: next(times))
    beating = asyncio.create_task(heartbeat.run())
    with pytest.raises((RuntimeError, StopIteration)):
        await asyncio.wait_for(beating, PATIENCE)
    assert heartbeat.check() == "the event loop was 8.0 s late"


def test_every_phase_has_a_metric() -> None:
    metrics = Metrics()
    metrics.registry.register(
        State(
            phases=lambda: {"Running": 2},
            event_ages=lambda: {"pods": 1.5},
            queue_depth=lambda: 3,
            leading=lambda: True,
            missed=lambda: 5,
            list_age=lambda: 7.5,
            waiting=lambda: {"nvidia.com/gpu": 4},
            free=lambda: {"nvidia.com/gpu": 6},
            held=lambda: True,
            faulty=lambda: False,
        )
    )
    assert metrics.registry.get_sample_value("trainyard_jobs", {"phase": "Running"}) == 2
    assert metrics.registry.get_sample_value("trainyard_jobs", {"phase": "Failed"}) == 0
    assert metrics.registry.get_sample_value("trainyard_leader") == 1
    assert metrics.registry.get_sample_value("trainyard_queue_held") == 1
    assert metrics.registry.get_sample_value("trainyard_queue_settings_wrong") == 0
    assert metrics.registry.get_sample_value("trainyard_waiting_jobs", {"pool": "nvidia.com/gpu"}) == 4
    assert metrics.registry.get_sample_value("trainyard_free_gpus", {"resource": "nvidia.com/gpu"}) == 6
    assert metrics.registry.get_sample_value("trainyard_watch_missed_total") == 5
    assert metrics.registry.get_sample_value("trainyard_last_list_age_seconds") == 7.5
