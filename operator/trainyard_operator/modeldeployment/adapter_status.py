"""The state of each adapter over all replicas. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from trainyard_crds.modeldeployment_status import AdapterState, AdapterStatus
from trainyard_crds.serving import ReplicaAdapter, ReplicaState
from trainyard_operator.modeldeployment.resolve import Resolved, ResolvedAdapter

_LEAST_ADVANCED = (AdapterState.FAILED, AdapterState.PENDING, AdapterState.LOADING, AdapterState.LOADED)


def adapter_statuses(
    resolved: Resolved, version: str, states: Iterable[ReplicaState | None], replicas: int
) -> list[AdapterStatus]:
    """Return the status of every adapter.

    Args:
        resolved: What is served.
        version: The adapter set that replicas should have.
        states: What each replica reports; None for one that does not answer.
        replicas: Number of replicas that should serve.
    """
    answered = list(states)
    return [_status(adapter, version, answered, replicas) for adapter in resolved.adapters]


def _status(adapter: ResolvedAdapter, version: str, states: list[ReplicaState | None], replicas: int) -> AdapterStatus:
    if adapter.fault is not None or adapter.desired is None:
        fault = adapter.fault
        state = AdapterState.FAILED if fault is not None and fault.final else AdapterState.PENDING
        return AdapterStatus(
            name=adapter.name,
            state=state,
            reason=fault.reason if fault else None,
            message=fault.message if fault else None,
        )
    artifact = adapter.desired.artifact
    reports = [_report(state, adapter.name, artifact.identity, version) for state in states]
    served = [report for report in reports if report is not None and report.served == artifact.identity]
    known = [report for report in reports if report is not None]
    all_served = len(served) == len(states) >= max(1, replicas)
    worst = min(known, key=lambda report: _LEAST_ADVANCED.index(report.state), default=None)
    state = AdapterState.LOADED if all_served else AdapterState.PENDING
    if worst is not None and worst.state is not AdapterState.LOADED:
        state = worst.state
    return AdapterStatus(
        name=adapter.name,
        source=adapter.source,
        checkpoint=adapter.checkpoint,
        digest=artifact.digest,
        state=state,
        ready_replicas=len(served),
        reason=worst.reason if worst is not None and state is not AdapterState.LOADED else None,
        message=(worst.message if worst is not None and state is not AdapterState.LOADED else adapter.note) or None,
    )


def _report(state: ReplicaState | None, name: str, identity: str, version: str) -> ReplicaAdapter | None:
    """Return what a replica reports of an adapter; None until it has read the adapter set."""
    if state is None or state.adapter_set != version:
        return None
    return next((one for one in state.adapters if one.name == name and one.identity == identity), None)
