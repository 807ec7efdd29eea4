"""The machine loses its power, or the gateway is away: the job ends as if nothing had happened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import node
from demo.kubectl import Object
from tests.e2e.support import Site, condition, training_job

STEPS, INTERVAL = 300, 50


def job(name: str) -> Object:
    dataset = {"source": "pvc://inputs/train.jsonl", "validation": {"fraction": 0.2}}
    made = training_job(name, steps=STEPS, dataset=dataset, retry={"limit": 1})
    made["spec"]["checkpoints"]["everySteps"] = INTERVAL
    return made


def outcome(status: dict[str, Any]) -> dict[str, Any]:
    """What a run gave, without names and times."""
    checkpoints = [{key: c[key] for key in ("name", "step", "metrics", "best")} for c in status["checkpoints"]]
    weights = {"exports": [(e["format"], e["digest"]) for e in status["exports"]], "checkpoints": checkpoints}
    return weights | {"metrics": {key: status["metrics"][key] for key in ("loss", "evalLoss")}}


@pytest.fixture(scope="module")
def straight(site: Site) -> dict[str, Any]:
    """The status of a run that nothing interrupted."""
    site.kubectl.apply(job("undisturbed"))
    return site.wait_phase("undisturbed", "Succeeded", seconds=420)


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
    site.kubectl.apply(job("alone"))
    status = site.wait_phase("alone", "Succeeded", seconds=420)
    assert outcome(status) == outcome(straight)
    assert sum(c["best"] for c in status["checkpoints"]) == 1
    assert (status["progress"]["step"], status["summary"]["progress"]) == (STEPS, "100%")
    assert [a["exitCode"] for a in status["attempts"]] == [0]
    assert condition(status, "Complete")["status"] == "True"


def test_a_reboot_of_the_node_costs_at_most_one_interval(site: Site, straight: dict[str, Any]) -> None:
    site.kubectl.apply(job("rebooted"))
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

    reached, resumed = last_step(site.kubectl.run("logs", ended["pod"])), resumed_step(site, second["pod"])
    assert before["progress"]["step"] <= reached
    assert reached - INTERVAL <= resumed >= before["checkpoints"][-1]["step"]
    reported = site.wait_step("rebooted", resumed + 1)
    assert reported["phase"] == "Running", "the gateway is back and takes reports while the job runs"

    status = site.wait_phase("rebooted", "Succeeded", seconds=420)
    assert [a["exitCode"] for a in status["attempts"]] == [255, 0]
    assert child_uid(site, status) == child, "the same Job goes on"
    assert outcome(status) | {"checkpoints": unowned(status)} == outcome(straight) | {"checkpoints": unowned(straight)}


def child_uid(site: Site, status: dict[str, Any]) -> str:
    return site.kubectl.run("get", "job", status["jobName"], "-o", "jsonpath={.metadata.uid}")


def last_step(log: str) -> int:
    """The last step that a pod's log tells of."""
    return max(map(int, re.findall(r'"step": (\d+)', log)))


def resumed_step(site: Site, pod: str) -> int:
    """The step of the checkpoint that a pod resumed from."""
    log = site.kubectl.wait("it resumed", lambda: site.kubectl.run("logs", pod), lambda text: "Resumed" in text, 60)
    found = re.search(r"Resumed from step-(\d+)-e1", log)
    assert found, log[:3000]
    return int(found[1])


def unowned(status: dict[str, Any]) -> list[Any]:
    """The checkpoints without their names, which tell the owner's epoch."""
    return [{**entry, "name": ""} for entry in outcome(status)["checkpoints"]]
