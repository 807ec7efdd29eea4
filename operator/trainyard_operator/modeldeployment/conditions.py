"""The conditions of a ModelDeployment: textbook kstatus. Pure.

Ready: requests are answered, or nothing is to be served (stopped, scaled to zero). Reconciling: a change is on its way.
Stalled: a user has to change something.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainyard_crds.modeldeployment_status import AdapterState, AdapterStatus
from trainyard_operator.modeldeployment.failures import Failure
from trainyard_operator.reconcile.conditions import READY, STALLED, Condition

RECONCILING, RUNTIME_READY, ADAPTERS_READY = "Reconciling", "RuntimeReady", "AdaptersReady"
SCALED_TO_ZERO, STOPPED, ROUTE_READY = "ScaledToZero", "Stopped", "RouteReady"


@dataclass(frozen=True, kw_only=True)
class View:
    """What the conditions are made from.

    Attributes:
        stopped: spec.stopped.
        wanted: Replicas that should serve.
        ready: Replicas that are ready.
        updated: Replicas of the current model and engine that are ready.
        exist: Replicas that exist, also those that are ending.
        adapters: The adapters.
        main_adapter: Name of the adapter that the ModelDeployment is about; None if it is about the model.
        waits: Why replicas are not started: reason and message.
        obstacle: Why nothing can be served without a change by a user: reason and message.
        failure: Why a replica does not serve.
        rollout: How replicas are replaced, a sentence.
        route: State of the HTTPRoute; None without spec.route.
    """

    stopped: bool
    wanted: int
    ready: int
    updated: int
    exist: int
    adapters: list[AdapterStatus]
    main_adapter: str | None = None
    waits: tuple[str, str] | None = None
    obstacle: tuple[str, str] | None = None
    failure: Failure | None = None
    rollout: str = ""
    route: Condition | None = None

    @property
    def main_is_loaded(self) -> bool:
        """Whether the adapter that the ModelDeployment is about answers in a replica."""
        names = [adapter.name for adapter in self.adapters if adapter.ready_replicas]
        return self.main_adapter is None or self.main_adapter in names

    @property
    def is_complete(self) -> bool:
        """Whether as many current replicas as wanted are ready, and no others exist."""
        return self.ready == self.updated == self.wanted == self.exist

    @property
    def failed_adapters(self) -> list[AdapterStatus]:
        """Adapters that cannot be served without a change."""
        return [adapter for adapter in self.adapters if adapter.state is AdapterState.FAILED]

    @property
    def pending_adapters(self) -> list[AdapterStatus]:
        """Adapters that are on their way."""
        return [one for one in self.adapters if one.state in (AdapterState.PENDING, AdapterState.LOADING)]


def conditions_of(view: View) -> dict[str, Condition | None]:
    """Return the conditions in the order in which they are shown; None leaves one out."""
    ready, stalled = _ready(view), _stalled(view)
    busy = None if stalled else _reconciling(view)
    return {
        READY: ready,
        RECONCILING: busy or Condition(False, "Reconciled"),
        STALLED: stalled or Condition(False, "NotStalled"),
        RUNTIME_READY: _runtime(view),
        ADAPTERS_READY: _adapters(view),
        SCALED_TO_ZERO: Condition(_is_zero(view), "ScaledToZero" if _is_zero(view) else "HasReplicas"),
        STOPPED: Condition(view.stopped, "StoppedBySpec" if view.stopped else "NotStopped"),
        ROUTE_READY: view.route,
    }


def message_of(conditions: dict[str, Condition | None]) -> str:
    """Return the sentence for the status: what a user must do, else what is on its way, else what is."""
    stalled, busy, ready = conditions[STALLED], conditions[RECONCILING], conditions[READY]
    assert stalled is not None
    assert busy is not None
    assert ready is not None
    first = stalled if stalled.holds else busy if busy.holds else ready
    return first.message


def _is_zero(view: View) -> bool:
    return not view.stopped and view.wanted == 0 and view.obstacle is None and view.waits is None


def _ready(view: View) -> Condition:
    if view.stopped:
        return Condition(True, "Stopped", "No replica runs, since spec.stopped is true.")
    if view.ready and view.main_is_loaded:
        return Condition(True, "Serving", f"{view.ready} of {view.wanted} replicas answer requests.")
    if _is_zero(view):
        return Condition(True, "ScaledToZero", "No replica runs, since spec.replicas is 0.")
    reason, message = _cause(view)
    return Condition(False, reason, message)


def _stalled(view: View) -> Condition | None:
    if view.obstacle is not None:
        return Condition(True, *view.obstacle)
    if view.stopped or view.wanted == 0:
        return None
    if view.failure is not None and view.failure.final:
        return Condition(True, view.failure.reason, view.failure.message)
    failed = view.failed_adapters
    if failed:
        return Condition(True, "AdapterFailed", _adapter_message(failed))
    return None


def _reconciling(view: View) -> Condition | None:
    if view.stopped or (view.wanted == 0 and view.waits is None):
        text = f"{view.exist} replicas are ending."
        return Condition(True, "Stopping", text) if view.exist else None
    if view.is_complete and not view.pending_adapters:
        return None
    reason, message = _cause(view)
    return Condition(True, reason, message)


def _cause(view: View) -> tuple[str, str]:
    """Return the first reason why not everything wanted is served."""
    if view.obstacle is not None:
        return view.obstacle
    if view.waits is not None:
        return view.waits
    if view.failure is not None:
        return view.failure.reason, view.failure.message
    if not view.is_complete:
        counts = f"{view.ready} of {view.wanted} replicas are ready, {view.updated} of them current."
        return ("RollingOut", f"{counts} {view.rollout}") if view.ready else ("ReplicasStarting", counts)
    pending = view.pending_adapters or view.failed_adapters
    return "AdaptersLoading", _adapter_message(pending)


def _runtime(view: View) -> Condition:
    if view.ready:
        return Condition(True, "EngineReady")
    if view.stopped or view.wanted == 0:
        return Condition(False, "NoReplicas")
    reason, message = _cause(view)
    return Condition(False, reason, message)


def _adapters(view: View) -> Condition:
    if view.failed_adapters:
        return Condition(False, "AdapterFailed", _adapter_message(view.failed_adapters))
    if view.pending_adapters:
        return Condition(False, "AdaptersLoading", _adapter_message(view.pending_adapters))
    return Condition(True, "AdaptersLoaded" if view.adapters else "NoAdapters")


def _adapter_message(adapters: list[AdapterStatus]) -> str:
    return " ".join(f"Adapter {one.name}: {one.message or 'it is being loaded.'}" for one in adapters)[:1024]
