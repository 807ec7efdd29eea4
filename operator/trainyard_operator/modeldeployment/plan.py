"""What to do about one ModelDeployment. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from trainyard_crds.modeldeployment_status import AdapterStatus
from trainyard_crds.serving import (
    ADAPTER_SET_ANNOTATION,
    ENGINE_CONTAINER,
    SERVING_CONFIG_ANNOTATION,
    VERSION_LABEL,
    AdapterSet,
)
from trainyard_kube.merge_patch import merge_patch
from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission
from trainyard_operator.modeldeployment.adapter_status import adapter_statuses
from trainyard_operator.modeldeployment.children import config_maps, engine, network
from trainyard_operator.modeldeployment.children.activator_slice import activator_slice
from trainyard_operator.modeldeployment.children.deployment import deployment, rollout
from trainyard_operator.modeldeployment.conditions import View
from trainyard_operator.modeldeployment.failures import engine_ended, failure_of
from trainyard_operator.modeldeployment.model import Observed, ServingSettings, address, is_ready, state_need
from trainyard_operator.modeldeployment.replica_count import granted_replicas, wanted_replicas
from trainyard_operator.modeldeployment.resolve import Fault, Resolved, resolve, run_claims
from trainyard_operator.modeldeployment.resources import CHILD_KINDS
from trainyard_operator.modeldeployment.status import desired_status, note
from trainyard_operator.reconcile.applied_hash import is_applied, stamped
from trainyard_operator.reconcile.conditions import Condition
from trainyard_operator.reconcile.fields import labels, owned_by
from trainyard_operator.reconcile.plan import LOG, Deletion, Need, Patch, Plan

Admit = Callable[[Observed], Admission]
_POLL_SECONDS, _IDLE_SECONDS = 2.0, 60.0
"""Seconds until replicas are asked for their state again: while something is on its way, and otherwise."""
ROUTE_KIND = "HTTPRoute"


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """The children that there should be.

    Attributes:
        bodies: Their bodies, in the order in which they are applied.
        config_map: Name of the ConfigMap with the ServingConfig.
        adapters: The adapter set.
        max_rank: Largest rank that the engine is started for.
    """

    bodies: tuple[Object, ...]
    config_map: str
    adapters: AdapterSet
    max_rank: int


def plan(observed: Observed, settings: ServingSettings, now: datetime, admit: Admit) -> Plan:
    """Decide what to do about one ModelDeployment.

    Args:
        observed: The ModelDeployment, its children, and the TrainingJobs that it names.
        settings: The operator's settings.
        now: The time.
        admit: Decides how many replicas with GPUs may run.
    """
    if observed.is_being_deleted:
        return Plan()
    resolved = _resolve(observed)
    if isinstance(resolved, Fault):
        return _report(observed, None, None, resolved, now)
    need = _need(observed)
    if need is not None:
        return Plan(need=need)
    if _is_taken(observed):
        return _report(observed, resolved, None, _name_taken(observed), now)
    return _serve(observed, resolved, settings, now, admit)


def _resolve(observed: Observed) -> Resolved | Fault:
    if observed.spec_error:
        return Fault("InvalidSpec", observed.spec_error, final=True)
    return resolve(observed)


def _serve(observed: Observed, resolved: Resolved, settings: ServingSettings, now: datetime, admit: Admit) -> Plan:
    """Plan the children and the status of what can be served."""
    missing = _missing_image(observed, settings)
    if missing is not None:
        return _report(observed, resolved, None, missing, now)
    admission = admit(observed)
    replicas = granted_replicas(observed, admission)
    wanted = _wanted(observed, resolved, settings, replicas)
    refusal = observed.refusal
    fault = None
    if refusal is not None and refusal.child != ROUTE_KIND:
        fault = Fault(refusal.reason, refusal.message, final=refusal.final)
    elif replicas < wanted_replicas(observed) and admission.decided:
        fault = Fault(admission.reason, admission.message, final=False)
    else:
        fault = _unreadable(observed)
    report = _report(observed, resolved, wanted, fault, now, admission=admission)
    if refusal is not None:
        return report
    return Plan(
        apply=_changed(observed, wanted.bodies),
        patches=_pod_patches(observed, wanted.adapters),
        delete=_superfluous(observed, wanted),
        status=report.status,
        note=report.note,
        requeue_after=report.requeue_after,
    )


def _serves(observed: Observed) -> bool:
    return any(is_ready(pod) for pod in observed.pods)


# --- children ---------------------------------------------------------------------------------------------------------


def _wanted(observed: Observed, resolved: Resolved, settings: ServingSettings, replicas: int) -> _Wanted:
    obj, spec = observed.obj, observed.spec
    known = (observed.status.get("engine") or {}).get("maxAdapterRank") if observed.deployment is not None else None
    ranks = [adapter.rank for adapter in resolved.adapters if adapter.rank is not None]
    max_rank = engine.max_adapter_rank(spec.max_adapter_rank, known, ranks)
    config = config_maps.serving_config(obj, spec, resolved, max_rank)
    config_map = config_maps.serving_config_map(obj, config)
    adapters = config_maps.adapter_set(resolved)
    name = config_map["metadata"]["name"]
    bodies = [
        config_map,
        config_maps.adapter_set_map(obj, adapters),
        network.service(obj, spec),
        *([network.budget(obj)] if spec.replicas > 1 else []),
        deployment(obj, spec, settings, config, config_map=name, replicas=replicas, serves=_serves(observed)),
        *([activator_slice(obj, observed.activators)] if _needs_activator(observed) else []),
        *([network.route(obj, spec)] if spec.route is not None else []),
    ]
    return _Wanted(
        bodies=tuple(stamped(body) for body in bodies), config_map=name, adapters=adapters, max_rank=max_rank
    )


def _needs_activator(observed: Observed) -> bool:
    """Return whether the gateway answers in place of replicas: none is ready, and one may be started by a request."""
    spec = observed.spec
    return spec.scale_to_zero is not None and not spec.stopped and not _serves(observed) and bool(observed.activators)


def _changed(observed: Observed, bodies: tuple[Object, ...]) -> tuple[Object, ...]:
    """Return the bodies that are missing or differ from what was applied.

    The route has no informer, since its API may be missing: it is applied after a change of the spec only.
    """
    known = {(child["kind"], child["metadata"]["name"]): child for child in observed.applied}
    if observed.deployment is not None:
        known["Deployment", observed.deployment["metadata"]["name"]] = observed.deployment
    generation = observed.obj["metadata"].get("generation")
    is_new = observed.status.get("observedGeneration") != generation or not _has_route(observed)

    def differs(body: Object) -> bool:
        if body["kind"] == ROUTE_KIND:
            return is_new
        return not is_applied(known.get((body["kind"], body["metadata"]["name"])), body)

    return tuple(body for body in bodies if differs(body))


def _has_route(observed: Observed) -> bool:
    return any(
        entry["type"] == "RouteReady" and entry["status"] == "True" for entry in observed.status.get("conditions") or []
    )


def _superfluous(observed: Observed, wanted: _Wanted) -> tuple[Deletion, ...]:
    """Return ConfigMaps that no pod mounts any more, a needless PodDisruptionBudget, and the activator's endpoints."""
    kept = {(body["kind"], body["metadata"]["name"]) for body in wanted.bodies}
    mounted = {(pod["metadata"].get("annotations") or {}).get(SERVING_CONFIG_ANNOTATION) for pod in observed.pods}
    plurals = {kind: plural for plural, kind in CHILD_KINDS.items() if plural != "services"}
    return tuple(
        Deletion(plurals[child["kind"]], child["metadata"]["name"], child["metadata"]["uid"])
        for child in observed.applied
        if child["kind"] in plurals
        and (child["kind"], child["metadata"]["name"]) not in kept
        and child["metadata"]["name"] not in mounted
        and (child["kind"] == "EndpointSlice" or _is_rolled_out(observed))
    )


def _is_rolled_out(observed: Observed) -> bool:
    """Return whether no pods of an earlier template exist or can still be made."""
    found = observed.deployment or {}
    status, generation = found.get("status") or {}, (found.get("metadata") or {}).get("generation")
    same = status.get("observedGeneration") == generation
    return same and status.get("replicas", 0) == status.get("updatedReplicas", 0)


def _pod_patches(observed: Observed, adapters: AdapterSet) -> tuple[Patch, ...]:
    """Return the patches by which running pods get the adapter set at once, and show the version."""
    version = observed.spec.version
    patches = []
    for pod in observed.pods:
        if "deletionTimestamp" in pod["metadata"] or not (pod.get("spec") or {}).get("nodeName"):
            continue
        annotations = pod["metadata"].get("annotations") or {}
        change: Object = {}
        if annotations.get(ADAPTER_SET_ANNOTATION) != adapters.version:
            change["annotations"] = {ADAPTER_SET_ANNOTATION: adapters.version}
        if labels(pod).get(VERSION_LABEL) != version:
            change["labels"] = {VERSION_LABEL: version}
        if change:
            patches.append(Patch("pods", pod["metadata"]["name"], {"metadata": change}))
    return tuple(patches)


# --- look-ups ---------------------------------------------------------------------------------------------------------


def _missing_image(observed: Observed, settings: ServingSettings) -> Fault | None:
    spec = observed.spec
    value, image = (
        ("image.servingGpu", settings.gpu_image) if spec.resources.gpus else ("image.server", settings.cpu_image)
    )
    if spec.pod.image or image:
        return None
    text = f"The chart sets no image for the engine. Set its value {value}, or spec.pod.image."
    return Fault("NoEngineImage", text, final=False)


def _unreadable(observed: Observed) -> Fault | None:
    """Return why the files that replicas need cannot be read now."""
    problems = (observed.reader_problem(observed.namespace, claim) for claim in sorted(claims_to_read(observed)))
    found = next((problem for problem in problems if problem is not None), None)
    return None if found is None else Fault("ArtifactReaderNotReady", found, final=False)


def _need(observed: Observed) -> Need | None:
    """Return what is still to be looked up: a Service of that name before the first one, and the replicas' states."""
    name = Need("services", observed.name)
    if observed.deployment is None and name not in observed.answers:
        return name
    needs = (state_need(pod) for pod in observed.pods if address(pod) and "deletionTimestamp" not in pod["metadata"])
    logs = (_log_need(pod) for pod in observed.pods if engine_ended(pod))
    return next((need for need in (*needs, *logs) if need not in observed.answers), None)


def _log_need(pod: Object) -> Need:
    return Need(LOG, pod["metadata"]["name"], ENGINE_CONTAINER)


def _is_taken(observed: Observed) -> bool:
    found = observed.answers.get(Need("services", observed.name))
    return found is not None and not owned_by(found, observed.uid)


def _name_taken(observed: Observed) -> Fault:
    text = (
        f"A Service {observed.name} exists in this namespace and belongs to something else. Delete it, or create the "
        "ModelDeployment under another name."
    )
    return Fault("NameTaken", text, final=False)


# --- status -----------------------------------------------------------------------------------------------------------


def _report(
    observed: Observed,
    resolved: Resolved | None,
    wanted: _Wanted | None,
    fault: Fault | None,
    now: datetime,
    *,
    admission: Admission | None = None,
) -> Plan:
    """Return a plan with the status and the Event alone."""
    view = _view(observed, resolved, wanted, fault)
    known = observed.status.get("engine") or {}
    status = desired_status(
        observed,
        resolved,
        view,
        now,
        max_rank=wanted.max_rank if wanted else known.get("maxAdapterRank"),
        queue=admission.queue if admission else None,
    )
    patch = merge_patch(observed.status, status)
    settled = view.is_complete and not view.pending_adapters
    return Plan(
        status=patch or None,
        note=note(observed, status) if patch else None,
        requeue_after=_IDLE_SECONDS if settled or not observed.pods else _POLL_SECONDS,
    )


def _view(observed: Observed, resolved: Resolved | None, wanted: _Wanted | None, fault: Fault | None) -> View:
    live = [pod for pod in observed.pods if "deletionTimestamp" not in pod["metadata"]]
    ready = [pod for pod in live if is_ready(pod)]
    current = [pod for pod in ready if wanted is None or _mounts(pod, wanted.config_map)]
    text = (fault.reason, fault.message) if fault is not None else None
    return View(
        stopped=observed.spec.stopped,
        wanted=wanted_replicas(observed),
        ready=len(ready),
        updated=len(current),
        exist=len(observed.pods),
        adapters=_adapters(observed, resolved, wanted, ready),
        main_adapter=_main_adapter(resolved),
        waits=text if fault is not None and not fault.final else None,
        obstacle=text if fault is not None and fault.final else None,
        failure=failure_of(live, {pod["metadata"]["name"]: observed.answers.get(_log_need(pod)) for pod in live}),
        rollout=rollout(observed.spec, serves=bool(ready)).message,
        route=_route(observed),
    )


def _mounts(pod: Object, config_map: str) -> bool:
    return (pod["metadata"].get("annotations") or {}).get(SERVING_CONFIG_ANNOTATION) == config_map


def _adapters(
    observed: Observed, resolved: Resolved | None, wanted: _Wanted | None, ready: list[Object]
) -> list[AdapterStatus]:
    if resolved is None or wanted is None:
        # What was served stays known: it is found again by these entries when its TrainingJob is gone.
        return [AdapterStatus.model_validate(entry) for entry in observed.status.get("adapters") or []]
    states = observed.replica_states
    answered = [states.get(pod["metadata"]["name"]) for pod in ready]
    return adapter_statuses(resolved, wanted.adapters.version, answered, wanted_replicas(observed))


def _main_adapter(resolved: Resolved | None) -> str | None:
    return resolved.served_name if resolved is not None and resolved.served_name != resolved.base_name else None


def _route(observed: Observed) -> Condition | None:
    if observed.spec.route is None:
        return None
    refusal = observed.refusal
    if refusal is None or refusal.child != ROUTE_KIND:
        return Condition(True, "RouteApplied")
    text = (
        "spec.route needs the Gateway API (gateway.networking.k8s.io/v1), which the API server does not have. Install "
        f"it, or remove spec.route. ({refusal.message})"
    )
    return Condition(False, "GatewayApiMissing", text)


def claims_to_read(observed: Observed) -> set[str]:
    """Return the claims whose artifact readers replicas need now: something of a run is still to be fetched."""
    resolved = _resolve(observed)
    if not isinstance(resolved, Resolved) or not wanted_replicas(observed):
        return set()
    states = observed.replica_states
    live = [pod for pod in observed.pods if "deletionTimestamp" not in pod["metadata"]]
    adapters = config_maps.adapter_set(resolved)
    settled = [state for pod in live if (state := states.get(pod["metadata"]["name"])) and state.ready]
    has_all = len(settled) >= wanted_replicas(observed) and all(s.adapter_set == adapters.version for s in settled)
    return set() if has_all else run_claims(resolved)
