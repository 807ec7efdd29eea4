"""A job that waits for GPUs gets a warning when its pool's GPUs have less memory than predicted."""

from __future__ import annotations

import json

from tests.e2e.support import TIMEOUT, Site, condition, training_job

LABEL = "example.com/gpu.memory"


def test_waiting_job_warns_when_gpus_of_its_pool_are_too_small(site: Site) -> None:
    [node, *_] = [one["metadata"]["name"] for one in site.kubectl.items("nodes")]
    job = training_job("large")
    job["spec"]["resources"] |= {"gpus": 1, "gpuResource": "example.com/gpu"}
    site.kubectl.run("label", "node", node, f"{LABEL}=16384", "--overwrite")
    try:
        site.kubectl.apply(job)
        site.wait_phase("large", "Queued")
        # Without a GPU no trainer runs and reports: the test writes the estimate of its first report.
        estimate = {"memoryEstimate": {"bytes": 20 * 2**30, "basis": "lora"}}
        patch = json.dumps({"status": estimate})
        site.kubectl.run("patch", "trainingjob", "large", "--subresource=status", "--type=merge", "-p", patch)
        status = site.wait_status(
            "large", "with a memory warning", lambda status: condition(status, "MemoryTooSmall").get("status") == "True"
        )
        found = condition(status, "MemoryTooSmall")
        assert f"1 of the 1 nodes it may run on have smaller GPUs: {node} (16.00 GiB)" in found["message"]
        assert found["message"] in site.kubectl.run("describe", "trainingjob", "large")
        shown = ("get", "trainingjob", "large", "-o", "wide")
        warning = "predicted to need 20.00 GiB"
        site.kubectl.wait("it is shown", lambda: site.kubectl.run(*shown), lambda text: warning in text, TIMEOUT)
    finally:
        site.kubectl.run("label", "node", node, f"{LABEL}-")
        site.kubectl.run("delete", "trainingjob", "large", "--ignore-not-found")
