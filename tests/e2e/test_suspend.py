"""Suspension and resume on a real kubelet."""

from __future__ import annotations

from typing import Any

from tests.e2e.support import Site, outcome, reference_job, resumed_step, training_job, unfinished


def test_suspended_job_resumes_in_the_same_child_job_with_bit_equal_weights(site: Site) -> None:
    site.begin(reference_job("broken"))
    status = suspended_and_resumed(site, "broken")
    assert outcome(status) == outcome(site.undisturbed()), "weights or metrics differ from a straight run"


def test_quantized_job_resumes_with_bit_equal_weights(site: Site) -> None:
    names = ("broken-qlora", "straight-qlora")
    site.kubectl.apply(*(training_job(name, method="qlora", steps=120) for name in names))
    broken = suspended_and_resumed(site, "broken-qlora")
    straight = site.wait_phase("straight-qlora", "Succeeded")
    assert broken["exports"][0]["digest"] == straight["exports"][0]["digest"], "weights differ from a straight run"
    assert broken["metrics"]["loss"] == straight["metrics"]["loss"]


def suspended_and_resumed(site: Site, name: str) -> dict[str, Any]:
    """Return the final status of a job that was suspended early and resumed."""
    child = site.wait_trained(name)["jobName"]
    uid = site.kubectl.run("get", "job", child, "-o", "jsonpath={.metadata.uid}")
    site.patch(name, {"suspend": True})
    status = site.wait_phase(name, "Suspended")
    assert unfinished(site.pods(name)) == [], "Suspended must mean that the pod is gone"
    assert status["checkpoints"], "a suspended job has saved"
    saved = status["checkpoints"][-1]["step"]
    assert status["attempts"][-1]["exitCode"] == 75

    site.patch(name, {"suspend": False})
    status = site.wait_phase(name, "Succeeded")
    assert site.kubectl.run("get", "job", child, "-o", "jsonpath={.metadata.uid}") == uid, (
        "the child Job stays the same"
    )
    assert [a["exitCode"] for a in status["attempts"]] == [75, 0]
    assert resumed_step(site.log(status["attempts"][-1]["pod"])) == saved >= 3
    return status
