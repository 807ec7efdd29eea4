"""Jobs that cannot start: the reason in the status, and the failure after `spec.startDeadlineSeconds`."""

from __future__ import annotations

from typing import Any

import pytest

from demo.kubectl import Object
from tests.e2e.support import TIMEOUT, Site, condition, training_job

DEADLINE = 60
"""Start deadline in seconds; on a busy node a pod needs some time to reach its fault."""


def late(name: str, **spec: Any) -> Object:
    """Return a job with a short start deadline that fits beside all other jobs."""
    return training_job(name, cpu="20m", startDeadlineSeconds=DEADLINE, **spec)


def without_secret() -> Object:
    return late(
        "no-secret", model={"source": "hf://org/name", "credentialsSecret": {"name": "no-such-secret", "key": "token"}}
    )


def without_claim() -> Object:
    return late("no-claim", dataset={"source": "pvc://no-such-claim/train.jsonl"})


def without_volume() -> Object:
    return late("no-volume", storage={"size": "1Gi", "storageClassName": "no-such-class", "retain": False})


@pytest.fixture(scope="module")
def begun(site: Site) -> None:
    """Apply all jobs, so that their deadlines run at the same time."""
    site.kubectl.apply(without_secret(), without_claim(), without_volume())


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(
    ("job", "reason", "named"),
    [
        (without_secret(), "CreateContainerConfigError", "no-such-secret"),
        (without_claim(), "Unschedulable", "no-such-claim"),
        (without_volume(), "Unschedulable", "PersistentVolumeClaim"),
    ],
    ids=["missing Secret", "missing claim", "claim that never binds"],
)
def test_job_that_cannot_start_reports_why_and_fails_after_its_deadline(
    site: Site, job: Object, reason: str, named: str
) -> None:
    name = job["metadata"]["name"]
    status = site.wait_phase(name, "Failed")
    assert condition(status, "Failed")["reason"] == reason
    assert named.lower() in status["message"].lower()
    assert "spec.startDeadlineSeconds" in status["message"]
    site.kubectl.wait("its pod is gone", lambda: site.pods(name), lambda pods: pods == [], TIMEOUT)
