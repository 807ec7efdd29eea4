"""Node reboot and missing gateway: the job has the outcome of an undisturbed one."""

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
    """Final status of an uninterrupted run."""
    return site.undisturbed()


@pytest.fixture
def no_gateway(site: Site) -> Iterator[None]:
    """No gateway runs."""
    site.scale("gateway", 0)
    try:
        yield
    finally:
        site.scale("gateway", 1)


def test_job_finishes_with_a_complete_status_without_a_gateway(
    site: Site, straight: dict[str, Any], no_gateway: None
) -> None:
    site.kubectl.apply(reference_job("alone", cpu="1"))
    status = site.wait_phase("alone", "Succeeded")
    assert (outcome(status), kept(status)) == (outcome(straight), kept(straight))
    assert sum(c["best"] for c in status["checkpoints"]) == 1
    assert (status["progress"]["step"], status["summary"]["progress"]) == (STEPS, "100%")
    assert [a["exitCode"] for a in status["attempts"]] == [0]
    assert condition(status, "Complete")["status"] == "True"


def test_node_reboot_loses_at_most_one_checkpoint_interval(site: Site, straight: dict[str, Any]) -> None:
    # This job outlasts the reboot, to observe that the gateway accepts reports again.
    site.kubectl.apply(training_job("lasting", steps=100_000))
    site.wait_trained("lasting")
    site.kubectl.apply(reference_job("rebooted", cpu="1"))
    before = site.wait_trained("rebooted", step=INTERVAL + 1)
    first = before["attempts"][0]
    child = child_uid(site, before)
    saved = site.kubectl.wait("it has saved", lambda: saves(site.log(first["pod"])), bool, TIMEOUT)[-1]
    published = site.status("rebooted").get("progress", {}).get("step", 0)

    node.reboot()

    running = site.wait_status(
        "rebooted",
        "running in attempt 2",
        lambda status: len(status["attempts"]) == 2 and status["phase"] in ("Running", "Succeeded"),
    )
    ended, second = running["attempts"]
    assert (ended["podUID"], ended["exitCode"], ended["reason"]) == (first["podUID"], 255, "NodeRestarted")
    assert "came back" in ended["message"]
    # A node failure counts against retry.limit, like a crash; it is not a restart without progress.
    assert (running["attemptCounts"]["failed"], running["attemptCounts"]["restartsWithoutProgress"]) == (1, 0)

    reached, resumed = logged_step(site.log(ended["pod"])), site.wait_resumed(second["pod"])
    assert published <= reached
    assert reached - INTERVAL <= resumed >= saved
    site.wait_status("lasting", "updated by the restarted gateway", has_report_of_second_pod)
    site.patch("lasting", {"stop": "Force"})

    status = site.wait_phase("rebooted", "Succeeded")
    assert [a["exitCode"] for a in status["attempts"]] == [255, 0]
    assert child_uid(site, status) == child, "the child Job stays the same"
    assert (outcome(status), unowned(status)) == (outcome(straight), unowned(straight))


def saves(log: str) -> list[int]:
    """Return the steps of the checkpoints that the first pod saved."""
    return [int(step) for step in re.findall(r"Saved step-(\d+)-e1", log)]


def has_report_of_second_pod(status: dict[str, Any]) -> bool:
    """Return whether the status has a report of the second pod."""
    updated, started = status.get("progress", {}).get("updatedAt"), status["attempts"][1:] and status["attempts"][1]
    return bool(updated and started and moment(updated) > moment(started["startedAt"]))


def moment(stamp: str) -> dt.datetime:
    return dt.datetime.fromisoformat(stamp)


def child_uid(site: Site, status: dict[str, Any]) -> str:
    return site.kubectl.run("get", "job", status["jobName"], "-o", "jsonpath={.metadata.uid}")


def kept(status: dict[str, Any]) -> list[Any]:
    """Return the checkpoints without times."""
    return [{key: c[key] for key in ("name", "step", "metrics", "best")} for c in status["checkpoints"]]


def unowned(status: dict[str, Any]) -> list[Any]:
    """Return the checkpoints without their names, which contain the owner epoch."""
    return [{**entry, "name": ""} for entry in kept(status)]
