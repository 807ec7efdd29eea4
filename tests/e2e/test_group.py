"""Two processes in one pod with two fake GPUs."""

from __future__ import annotations

from demo.kubectl import Object
from tests.e2e.support import PROCESSES, TIMEOUT, Site, condition, logged_step, training_job, unfinished

STEPS, INTERVAL = 120, 20


def group_job(name: str) -> Object:
    job = training_job(name, steps=STEPS, dataset={"source": "pvc://inputs/train.jsonl"}, retry={"limit": 0})
    job["spec"]["resources"] = {"gpus": 2, "cpu": "800m", "memory": "4Gi"}
    job["spec"]["checkpoints"]["everySteps"] = INTERVAL
    return job


def processes(site: Site, pod: str) -> list[int]:
    return [int(word) for word in site.kubectl.run("exec", pod, "--", "python", "-c", PROCESSES).split()]


def test_two_processes_are_interrupted_resume_and_finish(site: Site) -> None:
    site.kubectl.apply(group_job("group"))
    first = site.wait_trained("group", step=INTERVAL + 3)["attempts"][-1]["pod"]
    found = processes(site, first)
    assert len(found) == 2

    # One of them is killed: the other detects it, and the pod ends with a code that is not counted as a retry.
    site.kubectl.run("exec", first, "--", "python", "-c", f"import os; os.kill({found[1]}, 9)")
    second = site.wait_attempt("group", 2)["pod"]
    site.kubectl.wait(f"{second} trains", lambda: logged_step(site.log(second)), lambda step: step > INTERVAL, TIMEOUT)
    site.patch("group", {"suspend": True})
    status = site.wait_phase("group", "Suspended")
    assert unfinished(site.pods("group")) == []
    saved = status["checkpoints"][-1]["step"]
    assert saved > INTERVAL

    site.patch("group", {"suspend": False})
    status = site.wait_phase("group", "Succeeded")
    assert [(one["exitCode"], one["reason"]) for one in status["attempts"][:2]] == [
        (76, "PeerLost"),
        (75, "Interrupted"),
    ]
    assert [one["exitCode"] for one in status["attempts"]] == [76, 75, 0]
    assert status["attemptCounts"]["failed"] == 0
    assert (status["progress"]["step"], status["progress"]["totalSteps"]) == (STEPS, STEPS)
    assert (status["summary"]["gpus"], condition(status, "Complete")["status"]) == ("2", "True")
    names = [one["name"] for one in status["checkpoints"]]
    assert len(set(names)) == len(names)
    assert names[-1] == f"step-{STEPS}-e3", "one owner a pod, not one a process"
    assert [export["format"] for export in status["exports"]] == ["adapter"]
    third = status["attempts"][-1]["pod"]
    assert f"Resumed from step-{saved}-e2" in site.log(third)
    assert site.log(third).count("CheckpointSaved") == site.log(third).count('"Saved step-')
