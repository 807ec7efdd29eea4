"""Pods on unreachable nodes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import ended, pod, running
from tests.unit.operator.trainingjob.state_model import new_job, observed_of
from trainyard_operator.trainingjob.policies.unreachable_node import OUT_OF_SERVICE, unreachable_node_message

DEAD = {"n1": "2026-01-02T10:00:00Z"}
FIRST = (
    "Pod tune-5f8c1d2e-a is on node n1, which has been unreachable since 2026-01-02T10:00:00Z. No other pod takes its "
    f"place until the node is back or, once its machine is off, an administrator deletes the Node or taints it "
    f"{OUT_OF_SERVICE}."
)


@pytest.mark.parametrize(
    ("nodes", "pods", "message"),
    [
        ({}, [running()], ""),
        (DEAD, [running()], FIRST),
        (DEAD, [running("b"), running("a")], FIRST),
        (DEAD, [running(node="n2")], ""),
        (DEAD, [pod()], ""),
        (DEAD, [ended()], ""),
        (DEAD, [{**running(), "gone": True}], ""),
        (DEAD, [], ""),
    ],
    ids=["all reachable", "on it", "first by name", "on another", "unbound", "ended", "gone", "none"],
)
def test_pods_on_unreachable_nodes_are_reported(nodes: dict[str, str], pods: list[Any], message: str) -> None:
    assert unreachable_node_message(observed_of(new_job(), unreachable_nodes=nodes), pods) == message
