"""What a kill between the count of a start that came to nothing and the suspension of its Job leaves behind."""

from __future__ import annotations

import pytest

from tests.unit.operator.trainingjob.state_model import ADMITTED, DAY, World, at, merged, new_pod, suspends
from trainyard_kube.paths import Object
from trainyard_operator.queue.backoff import backoff
from trainyard_operator.trainingjob.children.gang import INDEX_LABEL

LET_IN = ADMITTED._replace(start_seconds=300, queue={"pool": "nvidia.com/gpu"})


@pytest.fixture
def loose() -> World:
    """A job whose pod has had no node for the whole time."""
    world = World()
    world.admission = LET_IN
    for clock in ("10:00:00", "10:00:03"):
        world.now = at(clock)
        world.apply(world.plan())
        world.pods["a"] = new_pod("a", world.stamp)
    world.now = at("10:05:03")
    return world


def failed(world: World) -> dict[str, object]:
    found: dict[str, object] = world.job["status"]["queue"].get("failedStarts") or {}
    return found


def test_a_start_is_counted_once_and_before_its_job_is_suspended(loose: World) -> None:
    first = loose.plan()
    assert suspends(first) is None
    loose.apply(first)
    assert (failed(loose)["count"], failed(loose)["notBefore"]) == (1, "2026-01-02T10:06:03Z")
    loose.now = at("10:05:30")  # a kill, and a new operator that has not looked yet
    loose.admission = LET_IN._replace(admitted=False, decided=False, start_seconds=None)
    second = loose.plan()
    assert (suspends(second), second.status) == (True, None)
    loose.apply(second)
    assert loose.plan().status is None


def test_a_pod_that_gets_its_node_in_the_last_moment_keeps_it(loose: World) -> None:
    loose.apply(loose.plan())
    loose.pods["a"] = merged(loose.pods["a"], {"spec": {"nodeName": "node-1"}})
    found = loose.plan()
    assert suspends(found) is None
    assert found.status is not None
    assert found.status["phase"] == "Starting"


def test_one_pod_of_a_gang_without_a_node_is_enough(loose: World) -> None:
    loose.pods["b"] = merged(new_pod("b", "2026-01-02T10:00:00Z"), {"spec": {"nodeName": "node-1"}})
    found = loose.plan()
    assert found.status is not None
    assert found.status["phase"] == "Suspending"


def test_a_gang_that_lost_a_pod_has_time_from_then_on() -> None:
    world = World()
    world.job = merged(world.job, {"spec": {"resources": {"nodes": 2}}})
    world.admission = LET_IN
    world.apply(world.plan())
    for index in ("0", "1"):
        bound = {"metadata": {"labels": {INDEX_LABEL: index}}, "spec": {"nodeName": "node-1"}}
        world.pods[index] = merged(new_pod(index, "2026-01-02T10:00:00Z"), bound | running("10:00:10"))
    world.now = at("10:00:20")
    world.apply(world.plan())
    assert world.job["status"]["phase"] == "Running"
    world.pods["1"] |= {"gone": True}
    world.pods["1"] = merged(world.pods["1"], {"status": ended("10:20:00")})
    world.now = at("10:20:05")
    world.apply(world.plan())
    assert world.job["status"]["phase"] == "Starting"
    assert not failed(world)


def running(since: str) -> Object:
    state = {"running": {"startedAt": f"{DAY}{since}Z"}}
    return {"status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": state}]}}


def ended(moment: str) -> Object:
    state = {"terminated": {"exitCode": 137, "startedAt": f"{DAY}10:00:10Z", "finishedAt": f"{DAY}{moment}Z"}}
    return {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": state}]}


def test_nobody_waits_for_what_a_job_without_gpus_holds(loose: World) -> None:
    loose.admission = LET_IN._replace(start_seconds=None)
    assert loose.plan().status is None


def test_the_delay_doubles_up_to_an_hour() -> None:
    assert [backoff(count) for count in range(1, 9)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert backoff(10**6) == 3600
