"""Plans for one ModelDeployment: children, patches of pods, and no write where nothing changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.operator.modeldeployment.support import (
    DIGEST,
    NAME,
    OTHER_DIGEST,
    SETTINGS,
    UID,
    answers,
    observed,
    pod,
    state,
    training_job,
)
from trainyard_crds.serving import ADAPTER_SET_ANNOTATION, SERVING_CONFIG_ANNOTATION
from trainyard_operator.admission.decision import Admission
from trainyard_operator.modeldeployment.model import Observed
from trainyard_operator.modeldeployment.plan import claims_to_read, plan
from trainyard_operator.reconcile.plan import Need, Plan, Refusal

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
CPU: dict[str, Any] = {"model": {"from": {"trainingJob": "tune"}}, "resources": {"gpus": 0}}
JOBS = {"tune": training_job()}
ADMITTED = Admission(admitted=True, reason="Admitted", message="")
QUEUED = Admission(
    admitted=False,
    reason="InsufficientGpus",
    message="It waits for 1 GPU.",
    queue={"position": 2, "length": 3, "reason": "InsufficientGpus"},
)


def decide(found: Observed, admission: Admission = ADMITTED) -> Plan:
    return plan(found, SETTINGS, NOW, lambda _: admission)


def converged(spec: dict[str, Any] = CPU, **parts: Any) -> Observed:
    """Return what is observed once everything that is wanted exists."""
    found = observed(spec, jobs=JOBS, **parts)
    bodies = decide(found).apply
    deployment = next(body for body in bodies if body["kind"] == "Deployment")
    config_map = deployment["spec"]["template"]["metadata"]["annotations"][SERVING_CONFIG_ANNOTATION]
    version = _adapter_version(found)
    running = pod(config_map=config_map)
    running["metadata"]["annotations"][ADAPTER_SET_ANNOTATION] = version
    own = {**deployment, "metadata": {**deployment["metadata"], "generation": 1}}
    own["status"] = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}
    others = tuple(
        {**body, "metadata": {**body["metadata"], "uid": body["kind"]}}
        for body in bodies
        if body["kind"] != "Deployment"
    )
    found = replace(
        found,
        deployment=own,
        applied=others,
        pods=(running,),
        answers={**found.answers, **answers((running, state({NAME: DIGEST}, version)))},
    )
    found = replace(found, deployment=_serving(found, own))
    return replace(found, obj={**found.obj, "status": _applied(found)})


def _serving(found: Observed, own: dict[str, Any]) -> dict[str, Any]:
    """Return the Deployment as it is applied while a replica serves: with another rollout."""
    changed = [body for body in decide(found).apply if body["kind"] == "Deployment"]
    return {**own, **changed[0], "status": own["status"]} if changed else own


def _adapter_version(found: Observed) -> str:
    import json

    body = next(body for body in decide(found).apply if body["metadata"]["name"].endswith("-adapters"))
    return str(json.loads(next(iter(body["data"].values())))["version"])


def _applied(found: Observed) -> dict[str, Any]:
    status = decide(found).status
    assert status is not None
    return {key: value for key, value in status.items() if value is not None}


def test_first_plan_creates_all_children_and_reports() -> None:
    found = decide(observed(CPU, jobs=JOBS))
    assert [body["kind"] for body in found.apply] == ["ConfigMap", "ConfigMap", "Service", "Deployment"]
    assert found.status is not None
    assert found.status["observedGeneration"] == 1
    assert found.note is not None


def test_name_of_the_service_is_looked_up_first() -> None:
    found = replace(observed(CPU, jobs=JOBS), answers={})
    assert decide(found).need == Need("services", NAME)
    foreign = {"metadata": {"name": NAME, "uid": "x"}}
    taken = decide(replace(found, answers={Need("services", NAME): foreign}))
    assert taken.apply == ()
    assert taken.status is not None
    assert "A Service bot exists" in taken.status["message"]


def test_unchanged_object_costs_nothing() -> None:
    found = decide(converged())
    assert (found.apply, found.patches, found.delete, found.status, found.note) == ((), (), (), None, None)


def test_new_adapter_changes_no_template() -> None:
    before = converged()
    spec = {**CPU, "adapters": [{"name": "other", "from": {"trainingJob": "tune", "checkpoint": "last"}}]}
    after = replace(before, spec=observed(spec).spec, obj={**before.obj, "spec": spec})
    found = decide(after)
    assert [body["metadata"]["name"] for body in found.apply] == [f"{NAME}-{UID[:8]}-adapters"]
    [patch] = found.patches
    assert set(patch.body["metadata"]["annotations"]) == {ADAPTER_SET_ANNOTATION}
    assert found.status is not None
    assert {entry["name"]: entry["state"] for entry in found.status["adapters"]} == {
        NAME: "Pending",
        "other": "Pending",
    }
    assert claims_to_read(after) == {"tune-1"}
    assert claims_to_read(before) == set()


def test_version_is_a_label_of_running_pods_and_changes_no_template() -> None:
    before = converged()
    after = replace(before, spec=before.spec.model_copy(update={"version": "v2"}))
    found = decide(after)
    assert found.apply == ()
    assert [patch.body["metadata"] for patch in found.patches] == [{"labels": {"trainyard.dev/version": "v2"}}]


def test_another_model_replaces_the_template_and_the_old_config_goes_after_the_rollout() -> None:
    before = converged()
    job = training_job(model={"source": "hf://org/base", "revision": "beef"})
    after = replace(before, jobs={"tune": job})
    found = decide(after)
    assert {body["kind"] for body in found.apply} == {"ConfigMap", "Deployment"}
    assert found.delete == ()
    new = next(body for body in found.apply if body["kind"] == "Deployment")
    config_map = new["spec"]["template"]["metadata"]["annotations"][SERVING_CONFIG_ANNOTATION]
    own = {
        **new,
        "metadata": {**new["metadata"], "generation": 2},
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1},
    }
    rolled = replace(
        after,
        deployment=own,
        pods=(pod("bot-2", config_map),),
        answers={**after.answers, **answers((pod("bot-2"), None))},
    )
    assert [deletion.kind for deletion in decide(rolled).delete] == ["configmaps"]


@pytest.mark.parametrize(
    ("change", "replicas"), [({}, 1), ({"replicas": 0}, 0), ({"stopped": True}, 0), ({"replicas": 3}, 3)]
)
def test_replicas_of_the_deployment(change: dict[str, Any], replicas: int) -> None:
    found = decide(observed({**CPU, **change}, jobs=JOBS))
    deployment = next(body for body in found.apply if body["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == replicas
    assert ("PodDisruptionBudget" in {body["kind"] for body in found.apply}) is (replicas > 1)


@pytest.mark.parametrize(("admission", "replicas"), [(ADMITTED, 1), (QUEUED, 0)])
def test_replicas_with_gpus_pass_the_queue_one_by_one(admission: Admission, replicas: int) -> None:
    spec = {**CPU, "resources": {"gpus": 1}, "replicas": 2}
    found = decide(observed(spec, jobs=JOBS), admission)
    deployment = next(body for body in found.apply if body["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == replicas
    assert found.status is not None
    if admission is QUEUED:
        assert found.status["queue"]["position"] == 2
        assert found.status["message"] == "It waits for 1 GPU."


def test_route_without_the_gateway_api_is_reported_and_the_rest_serves() -> None:
    spec = {**CPU, "route": {"gateway": {"name": "public"}}}
    before = converged(spec)
    refused = replace(before, refusal=Refusal("CreateForbidden", "not found", final=False, child="HTTPRoute"))
    status = decide(refused).status
    assert status is not None
    route = next(entry for entry in status["conditions"] if entry["type"] == "RouteReady")
    assert (route["status"], route["reason"]) == ("False", "GatewayApiMissing")
    assert next(entry["status"] for entry in status["conditions"] if entry["type"] == "Ready") == "True"


def test_refused_child_is_reported() -> None:
    refused = replace(
        observed(CPU, jobs=JOBS),
        refusal=Refusal("QuotaExceeded", "The quota is used.", final=False, child="Deployment"),
    )
    found = decide(refused)
    assert (found.apply, found.patches) == ((), ())
    assert found.status is not None
    assert found.status["message"] == "The quota is used."


def test_replaced_adapter_is_pending_until_every_replica_serves_its_digest() -> None:
    before = converged()
    saved = [{**entry, "best": not entry["best"]} for entry in JOBS["tune"]["status"]["checkpoints"]]
    after = replace(before, jobs={"tune": training_job(checkpoints=saved)})
    status = decide(after).status
    assert status is not None
    [adapter] = status["adapters"]
    assert (adapter["digest"], adapter["state"], adapter["readyReplicas"]) == (OTHER_DIGEST, "Pending", 0)


def test_fault_of_the_whole_object_keeps_what_is_known_of_adapters() -> None:
    before = converged()
    adapters = list(before.status.get("adapters") or [])
    broken = replace(before, spec_error="spec.x: it is wrong.")
    status = decide(broken).status
    assert status is not None
    assert "adapters" not in status
    gone = replace(before, obj={**before.obj, "status": {**before.status, **status}}, jobs={})
    kept = decide(gone).status or {}
    assert kept.get("adapters", adapters)[0]["digest"] == adapters[0]["digest"]


def test_nothing_is_planned_for_one_that_is_being_deleted() -> None:
    found = observed(CPU, jobs=JOBS)
    gone = replace(
        found, obj={**found.obj, "metadata": {**found.obj["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    )
    assert decide(gone) == Plan()
