"""Suspend, resume, stop and delete on a real kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.support import Site, condition, training_job

STEPS = 400


def unfinished(pods: list[dict[str, Any]]) -> list[str]:
    return [p["metadata"]["name"] for p in pods if p.get("status", {}).get("phase") not in ("Succeeded", "Failed")]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_suspended_job_resumes_in_the_same_job_with_bit_equal_weights(site: Site, method: str) -> None:
    straight, broken = f"straight-{method}", f"broken-{method}"
    site.kubectl.apply(training_job(straight, method=method, steps=STEPS))
    site.wait_phase(straight, "Succeeded", seconds=420)
    site.kubectl.apply(training_job(broken, method=method, steps=STEPS))
    site.wait_step(broken, 5)
    child = site.status(broken)["jobName"]
    uid = site.kubectl.run("get", "job", child, "-o", "jsonpath={.metadata.uid}")

    site.patch(broken, {"suspend": True})
    status = site.wait_phase(broken, "Suspended")
    assert unfinished(site.pods(broken)) == [], "Suspended must mean that the pod is gone"
    assert status["checkpoints"], "a suspended job has saved"
    saved = status["checkpoints"][-1]["step"]
    assert status["attempts"][-1]["exitCode"] == 75

    site.patch(broken, {"suspend": False})
    status = site.wait_phase(broken, "Succeeded", seconds=420)
    assert site.kubectl.run("get", "job", child, "-o", "jsonpath={.metadata.uid}") == uid, "the same Job goes on"
    assert [a["exitCode"] for a in status["attempts"]] == [75, 0]
    log = site.kubectl.run("logs", status["attempts"][-1]["pod"])
    assert f"Resumed from step-{saved}-e1" in log, f"the second pod resumes at step {saved}:\n{log[:3000]}"
    reference = site.status(straight)
    assert status["exports"][0]["digest"] == reference["exports"][0]["digest"], "weights differ from a straight run"
    assert status["metrics"]["loss"] == reference["metrics"]["loss"]


def test_a_graceful_stop_saves_and_ends_the_job_for_good(site: Site) -> None:
    site.kubectl.apply(training_job("graceful", steps=100_000))
    site.wait_step("graceful", 3)
    site.patch("graceful", {"stop": "Graceful"})
    status = site.wait_phase("graceful", "Stopped")
    assert status["checkpoints"]
    assert condition(status, "Stopped")["status"] == "True"
    assert condition(status, "Finished")["status"] == "True"
    assert unfinished(site.pods("graceful")) == []
    site.kubectl.run("delete", "trainingjob", "graceful", "--wait=true")


def test_a_forced_stop_does_not_wait_for_the_grace_period(site: Site) -> None:
    job = training_job("forced", steps=100_000)
    job["spec"]["checkpoints"]["gracePeriodSeconds"] = 3600
    site.kubectl.apply(job)
    site.wait_step("forced", 1)
    site.patch("forced", {"stop": "Force"})
    site.wait_phase("forced", "Stopped", seconds=60)
    assert unfinished(site.pods("forced")) == []


def test_deleting_a_running_job_leaves_nothing_but_a_retained_claim(site: Site) -> None:
    job = training_job("deleted", steps=100_000)
    job["spec"]["storage"]["retain"] = True
    site.kubectl.apply(job)
    site.wait_step("deleted", 1)
    uid = site.job("deleted")["metadata"]["uid"]
    site.kubectl.run("delete", "trainingjob", "deleted", "--wait=true")
    selector = f"trainyard.dev/trainingjob-uid={uid}"
    site.kubectl.wait(
        "jobs, pods and configmaps of the deleted TrainingJob are gone",
        lambda: site.kubectl.items("jobs,pods,configmaps,secrets", "-l", selector),
        lambda left: left == [],
        120,
    )
    claims = [c["metadata"]["name"] for c in site.kubectl.items("pvc", "-l", selector)]
    assert claims == [f"deleted-{uid[:8]}"]
    site.kubectl.run("delete", "pvc", *claims)


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
