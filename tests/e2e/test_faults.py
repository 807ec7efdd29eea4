"""What goes wrong on a real node: reason, message and retry count, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.kubectl import Object
from tests.e2e.support import Site, condition, training_job


def resumed_after(site: Site, name: str, pods: int = 2) -> dict[str, Any]:
    """The status of a job that finished with that many pods, the first of which saved before it went."""
    status = site.wait_phase(name, "Succeeded", seconds=300)
    assert [a["number"] for a in status["attempts"]] == list(range(1, pods + 1))
    assert status["attempts"][-1]["exitCode"] == 0
    log = site.kubectl.run("logs", status["attempts"][-1]["pod"])
    assert "Resumed from step-" in log, log[:2000]
    return status


def running_pod(site: Site, name: str, step: int = 5) -> str:
    return str(site.wait_step(name, step)["attempts"][-1]["pod"])


def test_an_evicted_pod_saves_and_the_job_goes_on_for_free(site: Site) -> None:
    site.kubectl.apply(training_job("evicted", steps=300, retry={"limit": 0}))
    pod = running_pod(site, "evicted")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    url = f"/api/v1/namespaces/{site.kubectl.namespace}/pods/{pod}/eviction"
    site.kubectl.run("create", "--raw", url, "-f", "-", text=json.dumps(eviction))
    status = resumed_after(site, "evicted")
    assert (status["attempts"][0]["exitCode"], status["attempts"][0]["reason"]) == (75, "Evicted")
    assert status["attemptCounts"]["failed"] == 0


def test_a_deleted_pod_saves_and_the_job_goes_on_for_free(site: Site) -> None:
    site.kubectl.apply(training_job("pod-deleted", steps=300, retry={"limit": 0}))
    site.kubectl.run("delete", "pod", running_pod(site, "pod-deleted"), "--wait=false")
    status = resumed_after(site, "pod-deleted")
    assert (status["attempts"][0]["exitCode"], status["attempts"][0]["reason"]) == (75, "Interrupted")
    assert status["attemptCounts"]["failed"] == 0


def test_too_little_memory_fails_with_advice_after_its_retries(site: Site) -> None:
    job = training_job("hungry", retry={"limit": 1})
    job["spec"]["resources"]["memory"] = "300Mi"
    site.kubectl.apply(job)
    status = site.wait_phase("hungry", "Failed")
    assert condition(status, "Failed")["reason"] == "OOMKilled"
    assert [a["exitCode"] for a in status["attempts"]] == [137, 137]
    assert "300Mi" in status["message"]
    assert "spec.resources.memory" in status["message"]


def late(job: Object, seconds: int = 8) -> Object:
    job["spec"]["startDeadlineSeconds"] = seconds
    return job


def without_secret() -> Object:
    model = {"source": "hf://org/name", "credentialsSecret": {"name": "no-such-secret", "key": "token"}}
    return late(training_job("no-secret", model=model))


def without_claim() -> Object:
    return late(training_job("no-claim", dataset={"source": "pvc://no-such-claim/train.jsonl"}))


def without_volume() -> Object:
    storage = {"size": "1Gi", "storageClassName": "no-such-class", "retain": False}
    return late(training_job("no-volume", storage=storage))


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
    status = site.wait_phase(name, "Failed", seconds=90)
    assert condition(status, "Failed")["reason"] == reason
    assert named.lower() in status["message"].lower()
    assert "spec.startDeadlineSeconds" in status["message"]
    site.kubectl.wait("its pod is gone", lambda: site.pods(name), lambda pods: pods == [], 60)


def test_an_image_that_does_not_exist_is_named(site: Site) -> None:
    good = site.images["trainer"]
    site.upgrade(trainer=good + "-missing")
    try:
        site.kubectl.apply(late(training_job("no-image")))
        status = site.wait_phase("no-image", "Failed", seconds=120)
    finally:
        site.upgrade(trainer=good)
    assert condition(status, "Failed")["reason"] == "ImagePullBackOff"
    assert good + "-missing" in status["message"]
