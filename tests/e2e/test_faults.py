"""What goes wrong on a real node: reason, message and retry count, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from demo.kubectl import Object
from tests.e2e.support import Site, condition, training_job


def test_too_little_memory_fails_with_advice_after_its_retries(site: Site) -> None:
    job = training_job("hungry", retry={"limit": 1})
    job["spec"]["resources"]["memory"] = "300Mi"
    site.kubectl.apply(job)
    status = site.wait_phase("hungry", "Failed")
    assert condition(status, "Failed")["reason"] == "OOMKilled"
    assert [a["exitCode"] for a in status["attempts"]] == [137, 137]
    assert "300Mi" in status["message"]
    assert "spec.resources.memory" in status["message"]


def late(name: str, **spec: Any) -> Object:
    """A job with little time to start, for which there is room whatever else runs."""
    return training_job(name, cpu="20m", startDeadlineSeconds=15, **spec)


def without_secret() -> Object:
    return late(
        "no-secret", model={"source": "hf://org/name", "credentialsSecret": {"name": "no-such-secret", "key": "token"}}
    )


def without_claim() -> Object:
    return late("no-claim", dataset={"source": "pvc://no-such-claim/train.jsonl"})


def without_volume() -> Object:
    return late("no-volume", storage={"size": "1Gi", "storageClassName": "no-such-class", "retain": False})


@pytest.mark.parametrize(
    ("job", "reason", "named"),
    [
        (without_secret(), "CreateContainerConfigError", "no-such-secret"),
        (without_claim(), "Unschedulable", "no-such-claim"),
        (without_volume(), "Unschedulable", "PersistentVolumeClaim"),
    ],
    ids=["missing Secret", "missing claim", "claim that never binds"],
)
def test_what_cannot_start_says_why_and_fails_after_its_deadline(
    site: Site, job: Object, reason: str, named: str
) -> None:
    name = job["metadata"]["name"]
    site.kubectl.apply(job)
    status = site.wait_phase(name, "Failed")
    assert condition(status, "Failed")["reason"] == reason
    assert named.lower() in status["message"].lower()
    assert "spec.startDeadlineSeconds" in status["message"]
    site.kubectl.wait("its pod is gone", lambda: site.pods(name), lambda pods: pods == [], 300)


def test_a_bad_row_fails_the_job_with_file_row_and_remedy(site: Site) -> None:
    job = training_job("bad-data", dataset={"source": "pvc://inputs/broken.jsonl"})
    site.kubectl.apply(job)
    status = site.wait_phase("bad-data", "Failed")
    assert condition(status, "Failed")["reason"] == "BadData"
    assert status["attempts"][-1]["exitCode"] == 65
    assert len(status["attempts"]) == 1, "data does not get better by trying again"
    assert "broken.jsonl" in status["message"]
    assert "2" in status["message"], "the row is named"
    assert "Traceback" not in status["message"]
