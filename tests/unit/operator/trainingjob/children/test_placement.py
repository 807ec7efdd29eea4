"""Where the pods of a job may run, and which further devices they get."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.trainingjob.state_model import ADMITTED, SETTINGS, merged, new_job, observed_of
from trainyard_operator.trainingjob.children.render import check_job, children, export_job

REQUIRED = [{"key": "zone", "operator": "NotIn", "values": ["b"]}]


def pods(**resources: Any) -> dict[str, dict[str, Any]]:
    """The training, export and check pods of a job, by their role."""
    seen = observed_of(merged(new_job(), {"spec": {"resources": resources, "exports": [{"format": "merged"}]}}))
    *_rest, train = children(seen, SETTINGS, ADMITTED)
    _config, export = export_job(seen, (seen.spec.exports or [])[0], SETTINGS)
    made = {"train": train, "export": export, "check": check_job(seen, SETTINGS, image=None)}
    return {role: job["spec"]["template"]["spec"] for role, job in made.items()}


def test_every_pod_runs_only_on_nodes_that_meet_the_node_affinity() -> None:
    for pod in pods(nodeAffinity=REQUIRED).values():
        required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert required == {"nodeSelectorTerms": [{"matchExpressions": REQUIRED}]}


def test_requirement_of_the_spec_and_preference_of_the_queue_are_both_kept() -> None:
    affinity = pods(nodeAffinity=REQUIRED)["train"]["affinity"]["nodeAffinity"]
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchFields"][0]["values"] == ["n1"]
    assert len(affinity) == 2


def test_further_devices_are_for_training_pods() -> None:
    extended = [{"name": "rdma/hca", "quantity": "1"}]
    made = pods(
        extended=extended, claims=[{"name": "nic", "resourceClaimTemplateName": "fast"}], ephemeralStorage="9Gi"
    )
    assert made["train"]["containers"][0]["resources"]["requests"]["rdma/hca"] == "1"
    assert made["train"]["containers"][0]["resources"]["claims"] == [{"name": "nic"}]
    for role in ("export", "check"):
        assert "resourceClaims" not in made[role]
        assert not {"rdma/hca", "claims"} & made[role]["containers"][0]["resources"]["limits"].keys()
    assert made["export"]["containers"][0]["resources"]["limits"]["ephemeral-storage"] == "9Gi"
