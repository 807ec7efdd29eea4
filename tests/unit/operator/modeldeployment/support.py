"""Builders of ModelDeployments, TrainingJobs and pods for tables."""

from __future__ import annotations

from typing import Any

from trainyard_crds.constants import ROLE_LABEL
from trainyard_crds.modeldeployment_status import AdapterState
from trainyard_crds.serving import (
    DEPLOYMENT_UID_LABEL,
    SERVE_ROLE,
    SERVING_CONFIG_ANNOTATION,
    ReplicaAdapter,
    ReplicaPhase,
    ReplicaState,
)
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.model import Observed, ServingSettings, state_need
from trainyard_operator.modeldeployment.spec import parse_spec
from trainyard_operator.reconcile.plan import Need

NAME, NAMESPACE, UID = "bot", "team", "0123456789abcdef"
DIGEST, OTHER_DIGEST = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
RUN = "pvc://tune-1/trainyard/tune-1"
SETTINGS = ServingSettings(gpu_image="vllm:1", cpu_image="server:1", proxy_image="operator:1")


def model_deployment(spec: Object, **parts: Any) -> Object:
    """Return a ModelDeployment as the API server stores it."""
    metadata = {
        "name": NAME,
        "namespace": NAMESPACE,
        "uid": UID,
        "generation": 1,
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata,
        "spec": spec,
        **parts,
    }


def observed(spec: Object, *, status: Object | None = None, **parts: Any) -> Observed:
    """Return an observed ModelDeployment; its Service's name is free."""
    parsed = parse_spec(spec)
    answers = {Need("services", NAME): None, **parts.pop("answers", {})}
    return Observed(
        obj=model_deployment(spec, **({"status": status} if status else {})),
        spec=parsed.spec,
        spec_error=parsed.error,
        answers=answers,
        **parts,
    )


def checkpoint(step: int, digest: str = DIGEST, *, best: bool = False) -> Object:
    """Return a checkpoint as in the status of a TrainingJob."""
    name = f"step-{step}-e1"
    return {"name": name, "step": step, "digest": digest, "uri": f"{RUN}/checkpoints/{name}", "best": best}


def training_job(name: str = "tune", *, method: str = "lora", phase: str = "Succeeded", **status: Any) -> Object:
    """Return a TrainingJob with two checkpoints, of which the first is the best."""
    saved = [checkpoint(10, best=True), checkpoint(20, OTHER_DIGEST)]
    found = {
        "phase": phase,
        "runUri": RUN,
        "checkpoints": saved,
        "model": {"source": "hf://org/base", "revision": "c0ffee"},
    }
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}"},
        "spec": {"task": "llm", "method": method, "model": {"source": "hf://org/base"}, "adapter": {"rank": 8}},
        "status": found | status,
    }


def pod(name: str = "bot-1", config_map: str = "", *, ready: bool = True, **status: Any) -> Object:
    """Return a running pod with an address."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:01Z",
            "labels": {DEPLOYMENT_UID_LABEL: UID, ROLE_LABEL: SERVE_ROLE},
            "annotations": {SERVING_CONFIG_ANNOTATION: config_map},
        },
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions, **status},
    }


def state(adapters: dict[str, str], version: str, **changes: Any) -> ReplicaState:
    """Return the state of a replica that serves adapters: identity by name."""
    found = [
        ReplicaAdapter(name=name, identity=identity, served=identity, state=AdapterState.LOADED)
        for name, identity in adapters.items()
    ]
    return ReplicaState(phase=ReplicaPhase.SERVING, adapter_set=version, adapters=found, ready=True).model_copy(
        update=changes
    )


def answers(*states: tuple[Object, ReplicaState | None]) -> dict[Need, Any]:
    """Return the answers of pods' proxies."""
    return {state_need(one): found for one, found in states}
