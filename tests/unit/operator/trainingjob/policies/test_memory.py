"""Warnings of too little memory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import condition
from tests.unit.operator.trainingjob.state_model import merged, new_job, observed_of
from trainyard_operator.reconcile.plan import NODES, Need
from trainyard_operator.trainingjob.model import Caution
from trainyard_operator.trainingjob.policies.memory import memory_caution

GIB = 2**30
LABEL = "nvidia.com/gpu.memory"
NEED = Need(NODES, LABEL)
ESTIMATE = {"bytes": 20 * GIB, "basis": "b", "leastBytes": 12 * GIB, "deviceBytes": 24 * GIB}


def node(name: str, mib: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {LABEL: mib} if mib else {}}}


def decided(
    estimate: dict[str, Any] | None,
    nodes: list[Any] | None = None,
    spec: dict[str, Any] | None = None,
    conditions: list[Any] | None = None,
    need: Need = NEED,
) -> Caution | Need | None:
    status = {} if estimate is None else {"memoryEstimate": estimate}
    job = merged(new_job(), {"spec": spec or {}, "status": {**status, "conditions": conditions or []}})
    return memory_caution(observed_of(job, answers={} if nodes is None else {need: nodes}))


@pytest.mark.parametrize(
    ("change", "spec", "message"),
    [
        ({"deviceBytes": 19 * GIB}, {}, "its GPU has 19.00 GiB for it."),
        ({"deviceBytes": 19 * GIB}, {"resources": {"gpus": 0}}, "its container has 19.00 GiB for it."),
        (
            {"deviceBytes": 19 * GIB, "advice": "llm.maxLength 1024"},
            {},
            "its GPU has 19.00 GiB for it. What helps most: llm.maxLength 1024.",
        ),
    ],
    ids=["GPU", "container", "advice"],
)
def test_device_is_too_small(change: dict[str, Any], spec: dict[str, Any], message: str) -> None:
    found = decided({**ESTIMATE, **change}, spec=spec)
    assert isinstance(found, Caution)
    assert (found.condition, found.reason) == ("MemoryTooSmall", "DeviceTooSmall")
    assert found.message == f"The run is predicted to need 20.00 GiB; {message}"


def test_nodes_of_the_pool_are_looked_up() -> None:
    assert decided(ESTIMATE) == NEED
    spec = {"resources": {"gpuResource": "amd.com/gpu", "nodeSelector": {"b": "2", "a": "1"}}}
    assert decided(ESTIMATE, spec=spec) == Need(NODES, "a=1,b=2,amd.com/gpu.memory")


def test_node_affinity_limits_the_nodes_that_are_looked_up() -> None:
    affinity = [
        {"key": "zone", "operator": "In", "values": ["a", "b"]},
        {"key": "gpu", "operator": "NotIn", "values": ["v100"]},
        {"key": "spot", "operator": "DoesNotExist"},
        {"key": "rack", "operator": "Exists"},
    ]
    selector = f"zone in (a,b),gpu notin (v100),!spot,rack,{LABEL}"
    assert decided(ESTIMATE, spec={"resources": {"nodeAffinity": affinity}}) == Need(NODES, selector)


REMEDY = " Exclude them with spec.resources.nodeAffinity, or lower what the run needs."


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("n1", "24576")], None),
        ([node("n1", ""), node("n2", "unknown"), node("n3", "0")], None),
        ([], None),
        (
            [node("n1", "24576"), node("n2", "8192")],
            "1 of the 2 nodes it may run on have smaller GPUs: n2 (8.00 GiB)." + REMEDY,
        ),
        (
            [node(f"n{index}", str(1024 * (9 - index))) for index in range(1, 6)],
            "5 of the 5 nodes it may run on have smaller GPUs: n5 (4.00 GiB), n4 (5.00 GiB), n3 (6.00 GiB), ...."
            + REMEDY,
        ),
    ],
    ids=["large enough", "unknown", "none", "one", "many"],
)
def test_gpus_of_the_pool_are_too_small(nodes: list[Any], message: str | None) -> None:
    found = decided(ESTIMATE, nodes)
    if message is None:
        assert found is None
        return
    assert isinstance(found, Caution)
    assert found.reason == "PoolTooSmall"
    assert found.message == f"The run is predicted to need 12.00 GiB; {message}"


def test_stored_warning_saves_the_look_up() -> None:
    known = condition("MemoryTooSmall", reason="PoolTooSmall", message="The run is predicted to need 12.00 GiB; n2.")
    assert decided(ESTIMATE, conditions=[known]) == Caution("MemoryTooSmall", "PoolTooSmall", known["message"])
    assert decided({**ESTIMATE, "leastBytes": 13 * GIB}, conditions=[known]) == NEED


@pytest.mark.parametrize(
    ("estimate", "spec"),
    [(None, {}), ({**ESTIMATE}, {"resources": {"gpus": 0}})],
    ids=["no estimate", "CPU"],
)
def test_nothing_to_warn_of(estimate: dict[str, Any] | None, spec: dict[str, Any]) -> None:
    assert decided(estimate, spec=spec) is None
