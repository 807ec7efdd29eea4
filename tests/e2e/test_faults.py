"""Failures on a real node: reason, message with remedy, and retry count."""

from __future__ import annotations

from tests.e2e.support import Site, condition, training_job


def test_oom_killed_job_fails_with_advice_after_its_retries(site: Site) -> None:
    job = training_job("hungry", retry={"limit": 1})
    job["spec"]["resources"]["memory"] = "300Mi"
    site.kubectl.apply(job)
    status = site.wait_phase("hungry", "Failed")
    assert condition(status, "Failed")["reason"] == "OOMKilled"
    assert [a["exitCode"] for a in status["attempts"]] == [137, 137]
    assert "300Mi" in status["message"]
    assert "spec.resources.memory" in status["message"]


def test_invalid_row_fails_the_job_with_file_and_row(site: Site) -> None:
    job = training_job("bad-data", dataset={"source": "pvc://inputs/broken.jsonl"})
    site.kubectl.apply(job)
    status = site.wait_phase("bad-data", "Failed")
    assert condition(status, "Failed")["reason"] == "BadData"
    assert status["attempts"][-1]["exitCode"] == 65
    assert len(status["attempts"]) == 1, "bad data is not retried"
    assert "broken.jsonl" in status["message"]
    assert "row 2" in status["message"]
    assert "Traceback" not in status["message"]
