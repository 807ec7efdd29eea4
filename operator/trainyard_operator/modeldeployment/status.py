"""The status of a ModelDeployment. Pure."""

from __future__ import annotations

from datetime import datetime

from trainyard_crds.modeldeployment_status import AdapterState, LastFailure
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.children import engine
from trainyard_operator.modeldeployment.children.metadata import selector_text
from trainyard_operator.modeldeployment.conditions import View, conditions_of, message_of
from trainyard_operator.modeldeployment.failures import Failure
from trainyard_operator.modeldeployment.model import Observed
from trainyard_operator.modeldeployment.resolve import Resolved
from trainyard_operator.reconcile.conditions import READY, conditions
from trainyard_operator.reconcile.fields import condition, format_time
from trainyard_operator.reconcile.plan import Note

_MESSAGE_LIMIT = 2048


def desired_status(
    observed: Observed,
    resolved: Resolved | None,
    view: View,
    now: datetime,
    *,
    max_rank: int | None,
    queue: Object | None,
) -> Object:
    """Return the whole status; None removes a field.

    Args:
        observed: The ModelDeployment and its children.
        resolved: What is served; None while that is unknown.
        view: What the conditions are made from.
        now: The time.
        max_rank: Largest rank that the engine was started for.
        queue: Its entry in the queue.
    """
    wanted = conditions_of(view)
    entries = conditions(observed, wanted, now)
    text = " ".join(part for part in (message_of(wanted), resolved.note if resolved else "") if part)
    deployment = (observed.deployment or {}).get("status") or {}
    loaded = sum(adapter.state is AdapterState.LOADED for adapter in view.adapters)
    status: Object = {
        "observedGeneration": observed.obj["metadata"].get("generation"),
        "message": text[:_MESSAGE_LIMIT],
        "conditions": entries,
        "version": observed.spec.version,
        "replicas": int(deployment.get("replicas") or 0),
        "readyReplicas": view.ready,
        "updatedReplicas": view.updated,
        "selector": selector_text(observed.obj),
        "queue": queue,
        "lastFailure": _last_failure(observed, view, now),
        "adapters": [adapter.to_json() for adapter in view.adapters],
        "summary": {
            "replicas": f"{view.ready}/{view.wanted}",
            "adapters": f"{loaded}/{len(view.adapters)}" if view.adapters else None,
        },
    }
    if resolved is not None:
        status["summary"]["model"] = _model_text(resolved)
        status |= _served(observed, resolved, max_rank)
    return status


def _model_text(resolved: Resolved) -> str:
    job = resolved.status.training_job
    return f"TrainingJob {job}" if job else resolved.status.source


def _served(observed: Observed, resolved: Resolved, max_rank: int | None) -> Object:
    url = f"http://{observed.name}.{observed.namespace}.svc:{observed.spec.port}"
    addresses = [{"name": "cluster", "url": url}]
    if observed.spec.route is not None:
        addresses += [
            {"name": f"route-{index}", "url": f"http://{host}"}
            for index, host in enumerate(observed.spec.route.hostnames or [])
        ]
    model = resolved.status
    fields = dict.fromkeys(("revision", "digest", "trainingJob", "checkpoint"))
    return {
        "url": url,
        "addresses": addresses,
        "servedModelName": resolved.served_name,
        "model": {**fields, **model.to_json()},
        "engine": {"runtime": engine.RUNTIME, "maxAdapterRank": max_rank},
    }


def _last_failure(observed: Observed, view: View, now: datetime) -> Object | None:
    known = observed.status.get("lastFailure")
    failure = view.failure
    if failure is None:
        return known
    since = _since(known, failure)
    entry = LastFailure(
        reason=failure.reason,
        message=failure.message[:_MESSAGE_LIMIT],
        pod=failure.pod,
        time=since or format_time(now),
    )
    return entry.to_json()


def _since(known: Object | None, failure: Failure) -> str | None:
    """Return when a failure was first observed, if the status has it already."""
    if known is None or (known["reason"], known.get("pod")) != (failure.reason, failure.pod):
        return None
    return str(known["time"])


def note(observed: Observed, status: Object) -> Note | None:
    """Return the Event of a change of Ready; None when its reason is unchanged."""
    before = condition(observed.obj, READY)
    after = next(entry for entry in status["conditions"] if entry["type"] == READY)
    if before is not None and (before["status"], before["reason"]) == (after["status"], after["reason"]):
        return None
    text = status["message"] or after["reason"]
    if after["status"] == "True" or not status["lastFailure"]:
        return Note("Normal", after["reason"], text)
    return Note("Warning", after["reason"], text)
