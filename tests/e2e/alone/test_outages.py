"""The machine loses its power, or the gateway is away: the job ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster import node
from tests.e2e.support import INTERVAL, STEPS, Site, condition, logged_step, outcome, reference_job, resumed_step


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
    site.kubectl.apply(reference_job("rebooted", cpu="1"))
    before = site.wait_step("rebooted", INTERVAL + 1)
    first = before["attempts"][0]
    child = child_uid(site, before)
    assert (before["phase"], bool(before["checkpoints"])) == ("Running", True)

    node.reboot()

    running = site.kubectl.wait(
        "the second attempt runs",
        lambda: site.status("rebooted"),
        lambda status: len(status["attempts"]) == 2 and status["phase"] in ("Running", "Failed"),
        120,
    )
    ended, second = running["attempts"]
    assert (ended["podUID"], ended["exitCode"], ended["reason"]) == (first["podUID"], 255, "NodeRestarted")
    assert "came back" in ended["message"]
    # A fault of the machine is counted against retry.limit, as a crash is; it is no restart without progress.
    assert (running["attemptCounts"]["failed"], running["attemptCounts"]["restartsWithoutProgress"]) == (1, 0)

    reached, resumed = logged_step(site.log(ended["pod"])), resumption(site, second["pod"])
    assert before["progress"]["step"] <= reached
    assert reached - INTERVAL <= resumed >= before["checkpoints"][-1]["step"]
    reported = site.wait_step("rebooted", resumed + 1)
    assert reported["phase"] == "Running", "the gateway is back and takes reports while the job runs"

    status = site.wait_phase("rebooted", "Succeeded")
    assert [a["exitCode"] for a in status["attempts"]] == [255, 0]
    assert child_uid(site, status) == child, "the same Job goes on"
    assert (outcome(status), unowned(status)) == (outcome(straight), unowned(straight))


def child_uid(site: Site, status: dict[str, Any]) -> str:
    return site.kubectl.run("get", "job", status["jobName"], "-o", "jsonpath={.metadata.uid}")


def resumption(site: Site, pod: str) -> int:
    return resumed_step(site.kubectl.wait("it resumed", lambda: site.log(pod), lambda text: "Resumed" in text, 60))


def kept(status: dict[str, Any]) -> list[Any]:
    """The checkpoints, without times."""
    return [{key: c[key] for key in ("name", "step", "metrics", "best")} for c in status["checkpoints"]]


def unowned(status: dict[str, Any]) -> list[Any]:
    """The checkpoints without their names, which tell the owner's epoch."""
    return [{**entry, "name": ""} for entry in kept(status)]
