"""Pods that go on after their trainer, because of an injected container."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import GANG, attempt, child, context, ended, report, running, time
from tests.unit.operator.trainingjob.state_model import CHILD
from trainyard_kube.paths import Object
from trainyard_operator.reconcile.plan import LOG, Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.sidecars import end_with_trainer

PROXY: Object = {"name": "istio-proxy", "state": {"running": {"startedAt": time("10:00:04")}}}
LOGS = {(LOG, f"{CHILD}-a"): "the end"}


def held(code: int, name: str = "a", *, proxy: Object = PROXY, **values: Any) -> Object:
    """A pod whose trainer ended at 10:05:00 and whose proxy runs on."""
    found = ended(name, code, **values)
    states = [*found["status"]["containerStatuses"], proxy]
    return found | {"status": {"phase": "Running", "containerStatuses": states}}


def decided(*pods: Object, **values: Any) -> Decision:
    found = end_with_trainer(context(*pods, **{"child": child(), "now": "10:05:31", "answers": LOGS, **values}))
    assert isinstance(found, Decision)
    return found


def test_finished_trainer_ends_the_job_though_a_sidecar_runs_on() -> None:
    found = decided(held(0, message=report(message="Trained.")))
    assert (found.phase, found.reason) == ("Succeeded", "TrainingFinished")
    assert found.message.startswith("Trained. The trainer's end did not end the container istio-proxy")


def test_bad_data_fails_the_job_though_a_sidecar_runs_on() -> None:
    found = decided(held(65, message=report("Failed", 65)))
    assert (found.phase, found.reason, found.log_tail) == ("Failed", "Reported", "the end")


@pytest.mark.parametrize(
    ("code", "failed", "fails"), [(70, 0, False), (70, 3, True), (75, 3, False)], ids=["fault", "last fault", "saved"]
)
def test_pod_is_deleted_so_that_the_next_attempt_follows(code: int, failed: int, fails: bool) -> None:
    status = {"attempts": [attempt()], "attemptCounts": {"total": 1, "failed": failed}}
    found = decided(held(code), status=status)
    if fails:
        assert (found.phase, found.reason, found.delete) == ("Failed", "InternalError", ())
        return
    assert (found.phase, found.reason) == ("Starting", "Restarting")
    assert [(each.kind, each.name, each.grace) for each in found.delete] == [("pods", f"{CHILD}-a", None)]
    assert "Attempt 1 ended:" in found.message


def test_sidecar_has_time_to_end_by_itself() -> None:
    found = decided(held(0, message=report()), now="10:05:10")
    assert (found.phase, found.requeue_after) == (None, 20.0)


def test_finished_peer_of_a_gang_waits_for_the_first_pod() -> None:
    leader, peer = running("0-a"), held(0, "1-a")
    assert end_with_trainer(context(leader, peer, child=child(), spec=GANG)) is None


def test_failed_peer_of_a_gang_is_deleted() -> None:
    found = decided(running("0-a"), held(70, "1-a"), spec=GANG)
    assert [each.name for each in found.delete] == [f"{CHILD}-1-a"]


@pytest.mark.parametrize(
    "case",
    [
        {"pods": [ended("a", 70)]},
        {"pods": [running()]},
        {"pods": [held(70, proxy={"name": "istio-proxy", "state": {"terminated": {"exitCode": 0}}})]},
        {"pods": [held(70, metadata={"deletionTimestamp": time("10:05:01")})]},
        {"pods": [held(70)], "child": child(suspend=True)},
        {"pods": [held(70)], "spec": {"suspend": True}},
        {"pods": [held(70)], "child": None},
    ],
    ids=["pod is over", "trainer runs", "sidecar ended", "being deleted", "Job suspended", "suspended", "no Job"],
)
def test_other_pods_are_left_alone(case: dict[str, Any]) -> None:
    pods = case.pop("pods")
    found = end_with_trainer(context(*pods, **{"child": child(), "now": "10:05:31", **case}))
    assert not isinstance(found, Need)
    assert found is None
