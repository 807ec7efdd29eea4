"""Assembles the parts of the operator and connects them; decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock, monotonic
from trainyard_kube.events import EventWriter
from trainyard_kube.informer import Informer
from trainyard_kube.kopf_transport import KopfTransport
from trainyard_kube.lease import Elector, LeaseClient
from trainyard_kube.resource import Key
from trainyard_kube.resync import PERIOD, Resync
from trainyard_kube.store import Store
from trainyard_operator.admission.candidate import Candidate
from trainyard_operator.admission.controller import AdmissionController
from trainyard_operator.admission.factory import create_admission
from trainyard_operator.admission.inventory_feed import InventoryFeed
from trainyard_operator.admission.policy_file import PolicyFile
from trainyard_operator.artifact_reader.objects import ReaderObjects
from trainyard_operator.artifact_reader.readers import ArtifactReaders
from trainyard_operator.ca_distribution import CaDistributor
from trainyard_operator.health import HealthServer, Heartbeat
from trainyard_operator.leadership import Leader
from trainyard_operator.metrics import Metrics, State
from trainyard_operator.modeldeployment.activators import Activators
from trainyard_operator.modeldeployment.kind import ModelDeployments
from trainyard_operator.modeldeployment.observe import Observer as ModelDeploymentObserver
from trainyard_operator.modeldeployment.queue_adapter import NextReplica, next_key, owner_key
from trainyard_operator.modeldeployment.queue_adapter import candidate as replicas_candidate
from trainyard_operator.modeldeployment.references import References
from trainyard_operator.modeldeployment.replica_state import ReplicaStates
from trainyard_operator.modeldeployment.resolve import named_jobs
from trainyard_operator.modeldeployment.resources import MODEL_DEPLOYMENTS
from trainyard_operator.modeldeployment.spec import parse_spec
from trainyard_operator.reconcile.reconciler import Reconciler
from trainyard_operator.reconcile.work_queue import Result, WorkQueue
from trainyard_operator.reconcile.workers import Workers
from trainyard_operator.settings import Settings
from trainyard_operator.stored_resources import SPECS
from trainyard_operator.trainingjob.kind import TrainingJobs
from trainyard_operator.trainingjob.observe import Observer
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate
from trainyard_operator.trainingjob.resources import ResourceKind, is_unanswered, job_key, jobs_on_node

logger = logging.getLogger(__name__)

_WORKERS = 48
"""Enough workers that creates of a burst do not queue behind the follow-up events of earlier ones."""
_HEAD_START_SECONDS = 2.0
"""Seconds that new jobs of the first lists get before the watches start, which deliver every object once more."""
_HEAD_START_JOBS = 100
"""With fewer TrainingJobs the watches start at once: how a deleted pod ended is only in its watch event."""


class Operator:
    """All parts of one process.

    Args:
        settings: The settings.
        kube: The API server.
        clock: The time.
        stop: Set when the process is to end.
    """

    def __init__(self, settings: Settings, kube: KubeClient, clock: ServerClock, stop: asyncio.Event) -> None:
        self._settings = settings
        self._metrics, self._heartbeat = Metrics(), Heartbeat(monotonic)
        kube.observe_requests(self._metrics.count_api_request)
        self._events = EventWriter(kube, clock, controller="trainyard.dev/operator", instance=settings.identity)
        self._store = Store(SPECS)
        self._observer = Observer(self._store)
        self._artifact_readers = self._create_artifact_readers(kube, clock)
        self._deployment_observer = ModelDeploymentObserver(
            self._store, self._artifact_readers.problem, self._activator_addresses
        )
        self._queue = WorkQueue[Key](monotonic, self._is_urgent)
        self._ca = CaDistributor(kube, self._store, clock, settings)
        self._policy = PolicyFile(settings.queue_policy_file)
        self._admission: AdmissionController = create_admission(
            settings,
            kube,
            clock,
            policy=self._policy,
            adapters={
                ResourceKind.TRAINING_JOBS: self._training_job_candidate,
                MODEL_DEPLOYMENTS: self._replica_candidate,
            },
            add=lambda key: self._queue.add(owner_key(key)),
        )
        self._connect_informers(kube)
        self._references, self._replica_states = References(), ReplicaStates()
        self._reconcilers: dict[str, Reconciler[Any]] = {
            ResourceKind.TRAINING_JOBS: Reconciler(self._training_jobs(), kube, self._events, clock),
            MODEL_DEPLOYMENTS: Reconciler(self._model_deployments(), kube, self._events, clock),
        }
        self._workers = Workers(self._queue, self._reconcile, self._metrics)
        self._primed = asyncio.Event()
        self._elector = self._create_elector(kube, clock)
        self._leader = Leader(
            self._elector,
            self._events,
            parts=[self._work, self._distribute_certificates, self._artifact_readers.run],
            watch=self._watch_after_priming,
            stop=stop,
        )
        self._metrics.registry.register(self._state())
        self._health = self._health_server()

    async def run(self) -> None:
        """Serve probes, wait for leadership, lead until the process is to end.

        Raises:
            KubeError: the process must end and be started again.
        """
        await self._health.start()
        heartbeat = asyncio.create_task(self._heartbeat.run())
        try:
            await self._leader.run()
        finally:
            heartbeat.cancel()
            await self._health.stop()

    # --- parts --------------------------------------------------------------------------------------------------------

    def _connect_informers(self, kube: KubeClient) -> None:
        feed = InventoryFeed(
            kube,
            self._admission.inventory,
            self._admission.quotas,
            clock=monotonic,
            wake=self._admission.capacity_changed,
            on_node_readiness=self._reconcile_jobs_on,
        )
        self._informers = [
            Informer(kube, spec, self._store.cache(spec.kind), monotonic, partial(self._notify, spec.kind))
            for spec in (replace(spec, namespaces=frozenset(self._settings.watch_namespaces)) for spec in SPECS)
        ]
        self._activators = Activators(
            self._settings.gateway_service, self._settings.namespace, self._reconcile_scaled_to_zero
        )
        activators = Informer(kube, self._activators.spec, self._activators.cache, monotonic)
        informers: list[Informer[Any]] = [*feed.informers, *self._informers, activators]
        self._resync = Resync(informers, monotonic)
        self._watch = KopfTransport(
            informers, on_relist=self._resync.request, clock=monotonic, finalizer="trainyard.dev/kopf"
        )

    def _training_jobs(self) -> TrainingJobs:
        return TrainingJobs(
            self._store,
            self._observer,
            settings=self._settings.render,
            admit=lambda observed: self._admission.decide(TrainingJobCandidate(observed)),
            ingest_workload=self._admission.observe_workload,
            unreachable_nodes=self._admission.inventory.unreachable,
        )

    def _model_deployments(self) -> ModelDeployments:
        return ModelDeployments(
            self._store,
            self._deployment_observer,
            settings=self._settings.serving,
            admit=lambda observed: self._admission.decide(NextReplica(observed)),
            replica_state=self._replica_states.ask,
            request_reader=self._artifact_readers.request,
        )

    def _create_artifact_readers(self, kube: KubeClient, clock: ServerClock) -> ArtifactReaders:
        settings = self._settings
        objects = ReaderObjects(
            kube,
            clock,
            image=settings.operator_image,
            pull_policy=settings.image_pull_policy,
            defaults=settings.pod_defaults,
            others=(f"{settings.namespace}/{settings.gateway_service}",),
        )
        return ArtifactReaders(
            objects, monotonic, authority=lambda: self._ca.authority, namespaces=settings.watch_namespaces
        )

    def _create_elector(self, kube: KubeClient, clock: ServerClock) -> Elector:
        settings = self._settings
        elector = Elector(
            LeaseClient(kube, settings.namespace, settings.lease_name),
            name=settings.lease_name,
            identity=settings.identity,
            clock=monotonic,
            now=clock.now,
            sleep=asyncio.sleep,
        )
        kube.set_write_fence(elector.check)
        return elector

    def _health_server(self) -> HealthServer:
        return HealthServer(
            checks={"event loop": self._heartbeat.check, "watches": self._check_watches},
            ready=lambda: None,
            registry=self._metrics.registry,
            views={"/queue": self._admission.describe, "/gpus": self._admission.inventory.describe},
            port=self._settings.health_port,
        )

    # --- what a leader runs -------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        await self._resync.prime()
        for key in self._store.all_keys():
            self._note_references(key)
            self._add(key)
        self._primed.set()
        logger.info("the cache is complete, %d objects", len(self._store.all_keys()))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync.run())
            group.create_task(self._admission.run())
            for _ in range(_WORKERS):
                group.create_task(self._workers.run())

    async def _watch_after_priming(self, stop: asyncio.Event) -> None:
        await self._primed.wait()
        if len(self._store.all_keys()) > _HEAD_START_JOBS:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_START_SECONDS):
                    await self._queue.wait_until_no_urgent()
        await self._watch.run(self._settings.kubeconfig, stop)

    async def _distribute_certificates(self) -> None:
        await self._primed.wait()  # namespaces with TrainingJobs are known from then on
        await self._ca.run()

    # --- routing ------------------------------------------------------------------------------------------------------

    def _training_job_candidate(self, key: Key) -> TrainingJobCandidate | None:
        """Read a TrainingJob for the admission controller; None if it is gone."""
        observed = self._observer.observe(key)
        return None if observed is None else TrainingJobCandidate(observed)

    def _replica_candidate(self, key: Key) -> Candidate | None:
        """Read replicas of a ModelDeployment for the admission controller; None if it is gone."""
        observed = self._deployment_observer.observe(owner_key(key))
        return None if observed is None else replicas_candidate(key, observed)

    def _mark_dirty(self, key: Key) -> None:
        self._admission.mark_dirty(key)
        if key.kind == MODEL_DEPLOYMENTS:
            self._admission.mark_dirty(next_key(key))

    def _is_urgent(self, key: Key) -> bool:
        if self._admission.is_waiting(key):
            return False
        return self._admission.is_admitted_pending(key) or is_unanswered(self._store, key)

    def _add(self, key: Key) -> None:
        self._mark_dirty(key)
        self._queue.add(key)
        self._ca.namespace_changed(key.namespace)

    async def _reconcile(self, key: Key) -> Result:
        try:
            return await self._reconcilers[key.kind].reconcile(key)
        finally:
            for dependent in self._references.to(key):
                self._queue.add(dependent)
            if self._store.get(key) is None:
                # A refused request can be the first notice of a deletion, which neither watch nor list repeats then.
                self._mark_dirty(key)
                self._ca.namespace_changed(key.namespace)

    def _notify(self, kind: str, objects: Sequence[Any], fresh: bool) -> None:
        """Reconcile the owners of changed objects; those of repeated events were reconciled when this process wrote."""
        keys = dict.fromkeys(self._store.key_of(kind, obj) for obj in objects)
        for key in keys:
            if key is not None:
                self._note_references(key)
                (self._add if fresh else self._mark_dirty)(key)

    def _note_references(self, key: Key) -> None:
        """Record which TrainingJobs a ModelDeployment names."""
        if key.kind != MODEL_DEPLOYMENTS:
            return
        obj = self._store.get(key)
        names = named_jobs(parse_spec(obj["spec"]).spec) if obj is not None else set()
        self._references.put(key, (job_key(key.namespace, name) for name in names))

    def _activator_addresses(self) -> frozenset[str]:
        return self._activators.addresses()

    def _reconcile_scaled_to_zero(self) -> None:
        """Reconcile the ModelDeployments for which the gateway stands in: its pods changed."""
        for key in self._store.all_keys():
            if key.kind == MODEL_DEPLOYMENTS and "scaleToZero" in (self._store.get(key) or {"spec": {}})["spec"]:
                self._queue.add(key)

    def _reconcile_jobs_on(self, node: str) -> None:
        """Reconcile the jobs with pods on a node that became unreachable or reachable: their status reports it."""
        for key in jobs_on_node(self._store, node):
            self._queue.add(key)

    # --- health -------------------------------------------------------------------------------------------------------

    def _check_watches(self) -> str | None:
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
