"""The machine loses its power, or the gateway is away: the job ends as if nothing had happened."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import node
from tests.e2e.support import (
    INTERVAL,
    STEPS,
    TIMEOUT,
    Site,
    condition,
    logged_step,
    outcome,
    reference_job,
    training_job,
)


@pytest.fixture
def straight(site: Site) -> dict[str, Any]:
    """The status of a run that nothing interrupted."""
    return site.undisturbed()


@pytest.fixture
def no_gateway(site: Site) -> Iterator[None]:
    """No gateway runs."""
    site.scale("gateway", 0)
    try:
        yield
    finally:
        site.scale("gateway", 1)


def test_a_job_finishes_with_everything_in_its_status_while_no_gateway_runs(
    site: Site, straight: dict[str, Any], no_gateway: None
) -> None:
    site.kubectl.apply(reference_job("alone", cpu="1"))
    status = site.wait_phase("alone", "Succeeded")
    assert (outcome(status), kept(status)) == (outcome(straight), kept(straight))
    assert sum(c["best"] for c in status["checkpoints"]) == 1
    assert (status["progress"]["step"], status["summary"]["progress"]) == (STEPS, "100%")
    assert [a["exitCode"] for a in status["attempts"]] == [0]
    assert condition(status, "Complete")["status"] == "True"


def test_a_reboot_of_the_node_costs_at_most_one_interval(site: Site, straight: dict[str, Any]) -> None:
    # One that lasts until after the reboot, however long that takes: by it the gateway shows that it is back.
    site.kubectl.apply(training_job("lasting", steps=100_000))
    site.wait_trained("lasting")
    site.kubectl.apply(reference_job("rebooted", cpu="1"))
    before = site.wait_trained("rebooted", step=INTERVAL + 1)
    first = before["attempts"][0]
    child = child_uid(site, before)
    saved = site.kubectl.wait("it has saved", lambda: saves(site.log(first["pod"])), bool, TIMEOUT)[-1]
    told = site.status("rebooted").get("progress", {}).get("step", 0)

    node.reboot()

    running = site.wait_status(
        "rebooted",
        "running in attempt 2",
        lambda status: len(status["attempts"]) == 2 and status["phase"] in ("Running", "Succeeded"),
    )
    ended, second = running["attempts"]
    assert (ended["podUID"], ended["exitCode"], ended["reason"]) == (first["podUID"], 255, "NodeRestarted")
    assert "came back" in ended["message"]
    # A fault of the machine is counted against retry.limit, as a crash is; it is no restart without progress.
    assert (running["attemptCounts"]["failed"], running["attemptCounts"]["restartsWithoutProgress"]) == (1, 0)

    reached, resumed = logged_step(site.log(ended["pod"])), site.wait_resumed(second["pod"])
    assert told <= reached
    assert reached - INTERVAL <= resumed >= saved
    site.wait_status("lasting", "told of by a gateway that is back", tells_of_its_second_pod)
    site.patch("lasting", {"stop": "Force"})

    status = site.wait_phase("rebooted", "Succeeded")
    assert [a["exitCode"] for a in status["attempts"]] == [255, 0]
    assert child_uid(site, status) == child, "the same Job goes on"
    assert (outcome(status), unowned(status)) == (outcome(straight), unowned(straight))


def saves(log: str) -> list[int]:
    """Steps of the checkpoints that a first pod saved."""
    return [int(step) for step in re.findall(r"Saved step-(\d+)-e1", log)]


def tells_of_its_second_pod(status: dict[str, Any]) -> bool:
    """Whether the status has a report of the second pod."""
    told, started = status.get("progress", {}).get("updatedAt"), status["attempts"][1:] and status["attempts"][1]
    return bool(told and started and moment(told) > moment(started["startedAt"]))


def moment(stamp: str) -> dt.datetime:
    return dt.datetime.fromisoformat(stamp)


def child_uid(site: Site, status: dict[str, Any]) -> str:
    return site.kubectl.run("get", "job", status["jobName"], "-o", "jsonpath={.metadata.uid}")


def kept(status: dict[str, Any]) -> list[Any]:
    """The checkpoints, without times."""
    return [{key: c[key] for key in ("name", "step", "metrics", "best")} for c in status["checkpoints"]]


def unowned(status: dict[str, Any]) -> list[Any]:
    """The checkpoints without their names, which tell the owner's epoch."""
    return [{**entry, "name": ""} for entry in kept(status)]
