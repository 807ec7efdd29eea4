"""Claims that only one node, or one pod, may mount at a time."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard_operator.artifact_reader.access import access_modes, is_exclusive, must_yield, nodes, users

ONCE, ONE_POD, MANY = "ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"


def pod(name: str, node: str | None, phase: str = "Running", claim: str = "runs") -> dict[str, Any]:
    volumes = [{"name": "x", "emptyDir": {}}, {"name": "run", "persistentVolumeClaim": {"claimName": claim}}]
    spec: dict[str, Any] = {"volumes": volumes} | ({"nodeName": node} if node else {})
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("modes", "exclusive"),
    [((ONCE,), True), ((ONE_POD,), True), ((MANY,), False), ((ONCE, "ReadOnlyMany"), False), ((), True)],
)
def test_exclusive_claims(modes: tuple[str, ...], exclusive: bool) -> None:
    assert is_exclusive(modes) is exclusive


def test_access_modes_are_those_of_the_volume() -> None:
    claim = {"spec": {"accessModes": [ONCE]}}
    assert access_modes(claim) == (ONCE,)
    assert access_modes({**claim, "status": {"accessModes": [ONCE, MANY]}}) == (ONCE, MANY)
    assert access_modes({}) == ()


def test_reader_prefers_the_nodes_of_pods_that_use_the_claim() -> None:
    pods = [
        pod("train", "node-2"),
        pod("next", "node-1", "Pending"),
        pod("waiting", None, "Pending"),
        pod("ended", "node-3", "Succeeded"),
        pod("failed", "node-4", "Failed"),
        pod("other", "node-5", claim="data"),
        pod("reader", "node-6"),
        {"metadata": {"name": "bare"}, "spec": {}},
    ]
    assert nodes(users(pods, "runs", "reader")) == ("node-1", "node-2")


@pytest.mark.parametrize(
    ("mode", "other", "yields"),
    [
        (ONCE, pod("train", "node-2", "Pending"), True),
        (ONCE, pod("train", "node-1", "Pending"), False),
        (ONCE, pod("train", None, "Pending"), False),  # it waits for something else
        (ONCE, pod("train", "node-2", "Running"), False),
        (ONE_POD, pod("train", None, "Pending"), True),
        (ONE_POD, pod("train", "node-1", "Running"), False),
        (ONCE, pod("train", "node-2", "Pending", claim="data"), False),
    ],
)
def test_reader_yields_to_a_pod_that_waits_for_the_claim(mode: str, other: dict[str, Any], yields: bool) -> None:
    assert must_yield([mode], users([other], "runs", "reader"), "node-1") is yields
