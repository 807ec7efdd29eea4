"""Wiring: settings, signals, leadership, watches, workers, servers. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVarTuple, Unpack

from trainyard_crds import logs
from trainyard_crds.constants import FIELD_MANAGER
from trainyard_kube.client import KubeClient, connect
from trainyard_kube.clock import ServerClock, monotonic
from trainyard_kube.errors import ConfigurationError, KubeError, LeadershipLostError, NotFoundError
from trainyard_kube.events import EventWriter
from trainyard_kube.informer import Informer
from trainyard_kube.kopf_transport import KopfTransport
from trainyard_kube.lease import Elector, LeaseClient
from trainyard_kube.resource import Key
from trainyard_kube.resync import PERIOD, Resync
from trainyard_kube.store import Store
from trainyard_operator import gc_tuning
from trainyard_operator.admission.candidate import Candidate
from trainyard_operator.admission.factory import create_admission
from trainyard_operator.admission.inventory_feed import InventoryFeed
from trainyard_operator.admission.policy_file import PolicyFile
from trainyard_operator.ca_distribution import Trust
from trainyard_operator.errors import ClusterNotReadyError, OperatorError, SettingsError
from trainyard_operator.health import HealthServer, Heartbeat
from trainyard_operator.metrics import Metrics, State
from trainyard_operator.reconcile.reconciler import Reconciler
from trainyard_operator.reconcile.work_queue import Result, WorkQueue
from trainyard_operator.reconcile.workers import Workers
from trainyard_operator.settings import Settings, load
from trainyard_operator.trainingjob.kind import TrainingJobs
from trainyard_operator.trainingjob.observe import Observer
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate
from trainyard_operator.trainingjob.resources import SPECS, ResourceKind, is_unanswered, jobs_on_node

logger = logging.getLogger(__name__)
Ts = TypeVarTuple("Ts")

_WORKERS = 48
"""A burst is done sooner when all of it is asked for than when what it sets off goes on beside it."""
_DRAIN = 5.0
_HEAD_START = 2.0
"""Seconds that new jobs of the first lists get before the watches begin, which take everything in once more."""
_FEW = 100
"""TrainingJobs that are taken in so fast that the watches need not wait: how a pod ended only they bring."""
_KOPF_PATIENCE = 1.0
"""Seconds kopf gets to end by itself: it waits 5 s for its own tasks where the stop met it in its start."""
EXIT_STOPPED, EXIT_FAILED, EXIT_MISCONFIGURED = 0, 1, os.EX_CONFIG


def main() -> int:
    """Run the operator until SIGTERM; the exit status."""
    try:
        settings = load()
        # kopf tells of every event at INFO, and of whole bodies, which may hold secrets, at DEBUG.
        logs.configure(settings.log_level, quiet=["kopf"])
        gc_tuning.calm()
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(_run(settings))
    except (SettingsError, ClusterNotReadyError, ConfigurationError) as error:
        sys.stderr.write(f"trainyard-operator: {error}\n")
        return EXIT_MISCONFIGURED
    except (OperatorError, KubeError, OSError) as error:
        sys.stderr.write(f"trainyard-operator: {error}\n")
        return EXIT_FAILED


class _Loop(asyncio.SelectorEventLoop):
    """Keeps the first handler of each signal: kopf sets its own, but our work must end before its watches do."""

    def __init__(self) -> None:
        super().__init__()
        self._handled: set[int] = set()

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> None:
        """Set a signal's handler unless it has one."""
        if sig not in self._handled:
            self._handled.add(sig)
            super().add_signal_handler(sig, callback, *args)


async def _run(settings: Settings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = ServerClock()
    kube = await connect(settings.kubeconfig, clock, FIELD_MANAGER)
    try:
        await check_cluster(kube)
        return await Operator(settings, kube, clock, stop).run()
    finally:
        await kube.close()


async def check_cluster(kube: KubeClient) -> None:
    """Make sure that the API server knows TrainingJobs; kopf would wait for ever without a word.

    Raises:
        ClusterNotReadyError: it does not.
        ApiError: it did not answer.
    """
    try:
        served = await kube.get("/apis/trainyard.dev/v1alpha1")
    except NotFoundError:
        served = {}
    if all(resource["name"] != "trainingjobs" for resource in served.get("resources", [])):
        raise ClusterNotReadyError(
            "the API server does not know TrainingJobs (trainyard.dev/v1alpha1). Install the CRD first: "
            "kubectl apply --server-side -f crds/manifests/trainingjobs.yaml, or the Helm chart with crds.install=true"
        )


class Operator:
    """All parts of one process.

    Args:
        settings: The environment's settings.
        kube: The API server.
        clock: The time.
        stop: Set when the process is asked to end.
    """

    def __init__(self, settings: Settings, kube: KubeClient, clock: ServerClock, stop: asyncio.Event) -> None:
        self._settings, self._stop = settings, stop
        self._store = Store(SPECS)
        self._observer = Observer(self._store)
        self._queue = WorkQueue[Key](monotonic, self._is_urgent)
        self._metrics, self._heartbeat = Metrics(), Heartbeat(monotonic)
        kube.observe_requests(self._metrics.count_api_request)
        self._events = EventWriter(kube, clock, controller="trainyard.dev/operator", instance=settings.identity)
        self._trust = Trust(kube, self._store, clock, settings)
        self._policy = PolicyFile(settings.queue_policy_file)
        self._admission = admission = create_admission(
            settings, kube, clock, policy=self._policy, observe=self._candidate, add=self._queue.add
        )
        feed = InventoryFeed(
            kube,
            admission.inventory,
            admission.quotas,
            clock=monotonic,
            wake=admission.capacity_changed,
            on_node_readiness=self._reconcile_jobs_on,
        )
        self._informers = [
            Informer(kube, spec, self._store.cache(spec.kind), monotonic, partial(self._notify, spec.kind))
            for spec in SPECS
        ]
        self._resync = Resync([*feed.informers, *self._informers], monotonic)
        self._watch = KopfTransport(
            [*feed.informers, *self._informers],
            on_relist=self._resync.request,
            clock=monotonic,
            finalizer="trainyard.dev/kopf",
        )
        training_jobs = TrainingJobs(
            self._store,
            self._observer,
            settings=settings.render,
            admit=lambda observed: admission.decide(TrainingJobCandidate(observed)),
            ingest_workload=admission.observe_workload,
            unreachable_nodes=admission.inventory.unreachable,
        )
        self._reconciler = Reconciler(training_jobs, kube, self._events, clock)
        self._workers = Workers(self._queue, self._reconcile, self._metrics)
        self._elector = Elector(
            LeaseClient(kube, settings.namespace, settings.lease_name),
            name=settings.lease_name,
            identity=settings.identity,
            clock=monotonic,
            now=clock.now,
            sleep=asyncio.sleep,
        )
        kube.set_write_fence(self._elector.check)
        self._metrics.registry.register(self._state())
        self._health = HealthServer(
            checks={"event loop": self._heartbeat.check, "watches": self._watches},
            ready=lambda: None,
            registry=self._metrics.registry,
            views={"/queue": admission.describe, "/gpus": admission.inventory.describe},
            port=settings.health_port,
        )
        self._primed = asyncio.Event()

    def _candidate(self, key: Key) -> Candidate | None:
        """Read an object for the admission controller; None if it is gone."""
        observed = self._observer.observe(key)
        return None if observed is None else TrainingJobCandidate(observed)

    async def run(self) -> int:
        """Serve probes, wait for leadership, lead until the end; the exit status.

        Raises:
            KubeError: the process must end and be started again.
        """
        await self._health.start()
        heartbeat = asyncio.create_task(self._heartbeat.run())
        try:
            if not await self._until_stopped(self._elector.acquire()):
                await self._lead()
            return EXIT_STOPPED
        finally:
            heartbeat.cancel()
            await self._health.stop()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run until the work is done or the process is asked to end; whether it was asked."""
        tasks = {asyncio.create_task(work), asyncio.create_task(self._stop.wait())}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
        return self._stop.is_set()

    async def _lead(self) -> None:
        """Everything a leader does. The first part that ends on its own ends the process."""
        # Made before kopf starts: kopf cancels what is made after it, when it ends.
        kopf_stop = asyncio.Event()
        holder = asyncio.create_task(self._elector.hold())
        watcher = asyncio.create_task(self._watch_after_priming(kopf_stop))
        stopper = asyncio.create_task(self._stop.wait())
        parts: list[asyncio.Task[None]] = [
            asyncio.create_task(part) for part in (self._resync_and_work(), self._trust_after_priming())
        ]
        writer = asyncio.create_task(self._events.run())
        try:
            await asyncio.wait([holder, watcher, stopper, *parts, writer], return_when=asyncio.FIRST_COMPLETED)
            for task in (holder, watcher, *parts, writer):
                if task.done():
                    task.result()  # raises what ended it
            if not self._stop.is_set():
                raise LeadershipLostError("the watches ended; the operator starts again")
            await self._wind_down(parts)
        finally:
            rest = (*parts, writer, stopper, holder)
            for each in rest:
                each.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await self._elector.release()  # nothing writes any more: a successor need not wait for kopf's end
            kopf_stop.set()
            await asyncio.wait([watcher], timeout=_KOPF_PATIENCE)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _wind_down(self, parts: list[asyncio.Task[None]]) -> None:
        """Finish what is in flight, take on nothing new."""
        for task in parts:
            task.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await self._events.drain(_DRAIN)

    async def _resync_and_work(self) -> None:
        await self._resync.prime()
        for key in self._store.all_keys():
            self._add(key)
        self._primed.set()
        logger.info("%d TrainingJobs known, working", len(self._store.all_keys()))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync.run())
            group.create_task(self._admission.run())
            for _ in range(_WORKERS):
                group.create_task(self._workers.run())

    async def _watch_after_priming(self, stop: asyncio.Event) -> None:
        await self._primed.wait()
        if len(self._store.all_keys()) > _FEW:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_START):
                    await self._queue.wait_until_no_urgent()
        await self._watch.run(self._settings.kubeconfig, stop)

    async def _trust_after_priming(self) -> None:
        await self._primed.wait()  # namespaces are known only then
        await self._trust.run()

    def _is_urgent(self, key: Key) -> bool:
        if self._admission.is_waiting(key):
            return False
        return self._admission.is_admitted_pending(key) or is_unanswered(self._store, key)

    def _add(self, key: Key) -> None:
        self._admission.mark_dirty(key)
        self._queue.add(key)
        self._trust.look(key.namespace)

    async def _reconcile(self, key: Key) -> Result:
        try:
            return await self._reconciler.reconcile(key)
        finally:
            if self._store.get(key) is None:
                # A refused request may be the first to tell, and then neither a watch nor a list has news of it.
                self._admission.mark_dirty(key)
                self._trust.look(key.namespace)

    def _notify(self, kind: str, objects: Sequence[Any], fresh: bool) -> None:
        """Reconcile the owners of changed objects; those of repeated events were reconciled when this process wrote."""
        keys = dict.fromkeys(self._store.key_of(kind, obj) for obj in objects)
        for key in keys:
            if key is not None:
                (self._add if fresh else self._admission.mark_dirty)(key)

    def _reconcile_jobs_on(self, node: str) -> None:
        """Reconcile the jobs with pods on a node that became unreachable or reachable: their status reports it."""
        for key in jobs_on_node(self._store, node):
            self._queue.add(key)

    def _watches(self) -> str | None:
        if not self._elector.leading:
            return None
        late = monotonic() - self._resync.last
        if late > 3 * PERIOD:
            return f"the last complete list is {late:.0f} s old"
        dead = " and ".join(self._resync.dead_watches)
        return f"lists of {dead} show changes that the watch does not bring" if dead else None

    def _event_ages(self) -> dict[str, float]:
        now = monotonic()
        return {each.spec.kind: now - each.last_event for each in self._informers if each.last_event is not None}

    def _state(self) -> State:
        return State(
            phases=lambda: self._store.count_states(ResourceKind.TRAINING_JOBS),
            event_ages=self._event_ages,
            queue_depth=lambda: len(self._queue.schedule),
            leading=lambda: self._elector.leading,
            missed=lambda: self._resync.missed,
            list_age=lambda: monotonic() - self._resync.last,
            waiting=self._admission.count_waiting,
            free=self._admission.inventory.free_units,
            held=lambda: self._policy.current().held,
            faulty=lambda: self._policy.fault is not None,
        )
