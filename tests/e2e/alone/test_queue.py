"""The queue with two fake GPUs and four jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from demo import install
from demo.kubectl import Object
from tests.e2e.support import TIMEOUT, Site, training_job
from trainyard_crds.constants import ADMITTED_ANNOTATION

LONG, SHORT, INTERVAL = 100_000, 30, 10
"""Steps: the first two jobs outlast the submission of the others and the change of the policy."""


def gpu_job(name: str, priority: int, steps: int) -> Object:
    job = training_job(name, steps=steps, queue={"priority": priority}, retry={"limit": 0})
    job["spec"]["resources"] = {"gpus": 1, "cpu": "800m", "memory": "3Gi"}
    job["spec"]["checkpoints"]["everySteps"] = INTERVAL
    return job


@pytest.fixture
def preemption(site: Site) -> Iterator[Site]:
    """The site, with the queue policy reset at the end."""
    yield site
    set_policy(site, {})


def set_policy(site: Site, policy: dict[str, Any]) -> None:
    patch = json.dumps({"data": {"policy.json": json.dumps(policy)}})
    site.kubectl.run("patch", "configmap", "trainyard-queue", "-n", install.NAMESPACE, "--type=merge", "-p", patch)


def test_jobs_wait_in_order_and_a_preempted_one_resumes(preemption: Site) -> None:
    site = preemption
    for name in ("first", "second"):
        site.kubectl.apply(gpu_job(name, 1, LONG))
        site.wait_phase(name, "Starting", "Running")  # admitted, one after the other
    for name in ("first", "second"):
        site.wait_trained(name, step=INTERVAL + 2)
    site.kubectl.apply(gpu_job("middle", 5, SHORT))
    site.kubectl.apply(gpu_job("urgent", 9, SHORT))
    queues = site.kubectl.wait(
        "both have a queue position",
        lambda: [site.status(name).get("queue", {}) for name in ("urgent", "middle")],
        lambda queues: (
            [queue.get("position") for queue in queues] == [1, 2] and queues[0].get("estimateBasis") == "progress"
        ),
        TIMEOUT,
    )
    assert [queue["length"] for queue in queues] == [2, 2]
    assert queues[0]["reason"] == "WaitingForGpus"
    assert site.status("urgent")["message"] == "It needs 1 GPU on one node; the most free is 0."
    assert "1 of 2" in site.kubectl.run("get", "trainingjob", "urgent", "-o", "wide")
    running = {name: site.status(name)["phase"] for name in ("first", "second")}
    assert running == {"first": "Running", "second": "Running"}, "no job is suspended without preemption"

    set_policy(site, {"preemption": True})
    # The youngest job of the lowest priority is preempted.
    status = site.wait_phase("second", "Queued")
    assert (status["attempts"][-1]["exitCode"], status["attemptCounts"]["failed"]) == (75, 0)
    saved = status["checkpoints"][-1]["step"]
    for name in ("urgent", "middle"):
        site.wait_phase(name, "Succeeded")
    status = site.wait_phase("second", "Running")
    assert site.wait_resumed(status["attempts"][-1]["pod"]) == saved
    assert (len(status["attempts"]), status["attemptCounts"]["failed"]) == (2, 0)
    assert admitted_at(site, "urgent") < admitted_at(site, "middle")
    for name in ("first", "second"):
        site.patch(name, {"stop": "Force"})
        site.wait_phase(name, "Stopped")


def admitted_at(site: Site, name: str) -> str:
    """Return when the queue admitted a job, from its child Job."""
    job = site.kubectl.get("job", site.status(name)["jobName"])
    assert job is not None
    return str(job["metadata"]["annotations"][ADMITTED_ANNOTATION])
