"""Stop and deletion on a real kubelet."""

from __future__ import annotations

from tests.e2e.support import TIMEOUT, Site, condition, training_job, unfinished


def test_graceful_stop_saves_and_ends_the_job(site: Site) -> None:
    site.kubectl.apply(training_job("graceful", steps=100_000))
    site.wait_trained("graceful")
    site.patch("graceful", {"stop": "Graceful"})
    status = site.wait_phase("graceful", "Stopped")
    assert status["checkpoints"]
    assert condition(status, "Stopped")["status"] == "True"
    assert condition(status, "Finished")["status"] == "True"
    assert unfinished(site.pods("graceful")) == []
    site.kubectl.run("delete", "trainingjob", "graceful", "--wait=true")


def test_forced_stop_does_not_wait_for_the_grace_period(site: Site) -> None:
    job = training_job("forced", steps=100_000)
    job["spec"]["checkpoints"]["gracePeriodSeconds"] = 3600
    site.kubectl.apply(job)
    site.wait_trained("forced")
    site.patch("forced", {"stop": "Force"})
    site.wait_phase("forced", "Stopped")
    assert unfinished(site.pods("forced")) == []


def test_deleted_job_leaves_only_a_retained_claim(site: Site) -> None:
    job = training_job("deleted", steps=100_000)
    job["spec"]["storage"]["retain"] = True
    site.kubectl.apply(job)
    site.wait_trained("deleted")
    uid = site.job("deleted")["metadata"]["uid"]
    site.kubectl.run("delete", "trainingjob", "deleted", "--wait=true")
    selector = f"trainyard.dev/trainingjob-uid={uid}"
    site.kubectl.wait(
        "jobs, pods and configmaps of the deleted TrainingJob are gone",
        lambda: site.kubectl.items("jobs,pods,configmaps,secrets", "-l", selector),
        lambda left: left == [],
        TIMEOUT,
    )
    claims = [c["metadata"]["name"] for c in site.kubectl.items("pvc", "-l", selector)]
    assert claims == [f"deleted-{uid[:8]}"]
    site.kubectl.run("delete", "pvc", *claims)
