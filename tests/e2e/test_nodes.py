"""Two pods on one node with two fake GPUs: a process is killed, a pod is evicted, and the job finishes."""

from __future__ import annotations

from demo.kubectl import Object
from tests.e2e.support import PROCESSES, TIMEOUT, Site, condition, logged_step, training_job, unfinished

STEPS, INTERVAL = 120, 20
INDEX = "batch.kubernetes.io/job-completion-index"


def job_in_pods(name: str) -> Object:
    job = training_job(name, steps=STEPS, dataset={"source": "pvc://inputs/train.jsonl"}, retry={"limit": 0})
    job["spec"]["resources"] = {"nodes": 2, "gpus": 1, "cpu": "400m", "memory": "3Gi"}
    job["spec"]["checkpoints"]["everySteps"] = INTERVAL
    return job


def peer(site: Site, job: str) -> str:
    """Return the running pod of index 1."""
    pods = [pod for pod in site.pods(job) if pod["metadata"]["labels"][INDEX] == "1"]
    (name,) = unfinished(pods)
    return name


def wait_attempt(site: Site, job: str, number: int) -> str:
    """Wait until an attempt has passed its first checkpoint, and return its first pod."""
    first: str = site.wait_attempt(job, number)["pod"]
    site.kubectl.wait(f"{first} trains", lambda: logged_step(site.log(first)), lambda step: step > INTERVAL, TIMEOUT)
    return first


def test_two_pods_survive_a_lost_process_and_an_eviction(site: Site) -> None:
    site.kubectl.apply(job_in_pods("nodes"))
    first = site.wait_trained("nodes", step=INTERVAL + 3)["attempts"][-1]["pod"]
    other = peer(site, "nodes")
    site.wait_logged(first, "All 2 pods of the group are connected.")
    site.wait_logged(other, "Pod 1 of 2 joined; pod 0 logs the training.")

    # The process of pod 1 is killed: both pods end with a code that is not counted, and restart together.
    (process,) = site.kubectl.run("exec", other, "--", "python", "-c", PROCESSES).split()
    site.kubectl.run("exec", other, "--", "python", "-c", f"import os; os.kill({process}, 9)")
    second = wait_attempt(site, "nodes", 2)
    assert site.wait_resumed(second) >= INTERVAL

    # Pod 1 is evicted: both pods save before they exit, so no step is lost.
    site.evict(peer(site, "nodes"))
    third = wait_attempt(site, "nodes", 3)
    status = site.wait_phase("nodes", "Succeeded")
    codes = [one["exitCode"] for one in status["attempts"]]
    assert (codes[0], codes[-1]) == (76, 0)
    assert codes[1] in (75, 76)
    assert len(codes) == 3
    assert status["attemptCounts"]["failed"] == 0
    assert (status["progress"]["step"], status["progress"]["totalSteps"]) == (STEPS, STEPS)
    assert (status["summary"]["gpus"], condition(status, "Complete")["status"]) == ("2", "True")
    names = [one["name"] for one in status["checkpoints"]]
    assert len(set(names)) == len(names)
    assert [export["format"] for export in status["exports"]] == ["adapter"]
    assert "Resumed from step-" in site.log(third)
    row = site.kubectl.run("get", "tj", "nodes", "--no-headers").split()
    assert row[:4] == ["nodes", "Succeeded", "100%", f"{STEPS}/{STEPS}"]
    site.kubectl.wait("all pods end", lambda: unfinished(site.pods("nodes")), lambda left: left == [], TIMEOUT)
