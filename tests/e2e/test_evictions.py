"""Eviction and deletion of a pod: it saves, and the job resumes in another one without a retry."""

from __future__ import annotations

from demo.kubectl import Object
from tests.e2e.support import Site, outcome, reference_job, resumed_step


def assert_resumed(site: Site, name: str, reason: str) -> None:
    """Assert that a second pod resumed where the first saved, without a retry, with the undisturbed outcome."""
    status = site.wait_phase(name, "Succeeded")
    first, second = status["attempts"]
    assert (first["number"], first["exitCode"], first["reason"]) == (1, 75, reason)
    assert (second["number"], second["exitCode"]) == (2, 0)
    assert status["attemptCounts"]["failed"] == 0
    assert resumed_step(site.log(second["pod"])) >= 3
    assert outcome(status) == outcome(site.undisturbed())


def free_restarts_only(name: str) -> Object:
    job = reference_job(name)
    job["spec"]["retry"] = {"limit": 0}
    return job


def test_evicted_pod_saves_and_job_resumes_without_a_retry(site: Site) -> None:
    site.begin(free_restarts_only("evicted"))
    pod = site.wait_trained("evicted")["attempts"][-1]["pod"]
    site.evict(pod)
    assert_resumed(site, "evicted", "Evicted")


def test_deleted_pod_saves_and_job_resumes_without_a_retry(site: Site) -> None:
    site.begin(free_restarts_only("pod-deleted"))
    pod = site.wait_trained("pod-deleted")["attempts"][-1]["pod"]
    site.kubectl.run("delete", "pod", pod, "--wait=false")
    assert_resumed(site, "pod-deleted", "Interrupted")
