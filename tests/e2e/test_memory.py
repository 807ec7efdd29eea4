"""A job that waits for GPUs is told when those of its pool are smaller than what it was predicted to need."""

from __future__ import annotations

import json

from tests.e2e.support import TIMEOUT, Site, condition, training_job

LABEL = "example.com/gpu.memory"


def test_the_nodes_labels_tell_that_a_pools_gpus_are_too_small(site: Site) -> None:
    [node, *_] = [one["metadata"]["name"] for one in site.kubectl.items("nodes")]
    job = training_job("large")
    job["spec"]["resources"] |= {"gpus": 1, "gpuResource": "example.com/gpu"}
    site.kubectl.run("label", "node", node, f"{LABEL}=16384", "--overwrite")
    try:
        site.kubectl.apply(job)
        site.wait_phase("large", "Queued")
        # There is no GPU here, so no trainer that could report: the test plays its first report.
        estimate = {"memoryEstimate": {"bytes": 20 * 2**30, "basis": "lora"}}
        patch = json.dumps({"status": estimate})
        site.kubectl.run("patch", "trainingjob", "large", "--subresource=status", "--type=merge", "-p", patch)
        status = site.wait_status(
            "large", "warned of", lambda status: condition(status, "MemoryTooSmall").get("status") == "True"
        )
        found = condition(status, "MemoryTooSmall")
        assert f"1 of the 1 nodes it may run on have smaller GPUs: {node} (16.00 GiB)" in found["message"]
        assert found["message"] in site.kubectl.run("describe", "trainingjob", "large")
        shown = ("get", "trainingjob", "large", "-o", "wide")
        told = "predicted to need 20.00 GiB"
        site.kubectl.wait("it is shown", lambda: site.kubectl.run(*shown), lambda text: told in text, TIMEOUT)
    finally:
        site.kubectl.run("label", "node", node, f"{LABEL}-")
        site.kubectl.run("delete", "trainingjob", "large", "--ignore-not-found")
