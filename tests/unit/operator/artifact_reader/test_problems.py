"""Sentences about readers that do not run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from trainyard_operator.artifact_reader.problems import (
    has_ended,
    is_running,
    is_stuck,
    newest_warning,
    overdue_end,
    problem_of,
)

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
BEGIN = "The files of claim runs cannot be read yet: "


def pod(*conditions: dict[str, Any], phase: str = "Pending", **container: Any) -> dict[str, Any]:
    statuses = [{"name": "artifacts", **container}] if container else []
    return {"metadata": {}, "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": statuses}}


def scheduled(status: str, message: str = "", seconds: int = 30) -> dict[str, Any]:
    at = f"2026-01-01T00:00:{60 - seconds:02}Z"
    return {"type": "PodScheduled", "status": status, "message": message, "lastTransitionTime": at}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


CRASHED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("found", "warning", "problem"),
    [
        (pod(), None, None),
        (pod(scheduled("True"), **waiting("ContainerCreating")), None, None),
        (
            pod(scheduled("False", "0/3 nodes are available: 3 had volume node affinity conflict.")),
            None,
            "0/3 nodes are available: 3 had volume node affinity conflict.",
        ),
        (pod(scheduled("False")), None, "its reader has no node."),
        (
            pod(scheduled("True"), **waiting("ImagePullBackOff", 'Back-off pulling image "x"')),
            None,
            'ImagePullBackOff: Back-off pulling image "x".',
        ),
        (pod(scheduled("True"), **waiting("CreateContainerConfigError")), None, "CreateContainerConfigError."),
        (
            pod(scheduled("True"), **waiting("CrashLoopBackOff", "back-off 10s", lastState=CRASHED)),
            None,
            "its reader ends with exit code 137 (OOMKilled).",
        ),
        (
            pod(scheduled("True"), **waiting("ContainerCreating")),
            "Multi-Attach error for volume: it is used by pod train-x.",
            "Multi-Attach error for volume: it is used by pod train-x.",
        ),
        (pod(scheduled("True"), phase="Running", state={"running": {}}), "an old warning", None),
    ],
)
def test_problem(found: dict[str, Any], warning: str | None, problem: str | None) -> None:
    assert problem_of(found, "runs", warning) == (None if problem is None else BEGIN + problem)


@pytest.mark.parametrize(
    ("found", "stuck"),
    [
        (pod(scheduled("True", seconds=30), **waiting("ContainerCreating")), True),
        (pod(scheduled("True", seconds=30)), True),
        (pod(scheduled("True", seconds=10), **waiting("ContainerCreating")), False),
        (pod(scheduled("False", seconds=30)), False),
        (pod(), False),
        (pod(scheduled("True", seconds=30), **waiting("ErrImagePull")), False),
        (pod(scheduled("True", seconds=30), phase="Running"), False),
    ],
)
def test_pod_that_cannot_mount_its_volumes_is_stuck(found: dict[str, Any], stuck: bool) -> None:
    assert is_stuck(found, NOW) is stuck


def test_newest_warning() -> None:
    def event(note: str, **times: Any) -> dict[str, Any]:
        return {"type": "Warning", "note": note, **times}

    first = event("first", deprecatedLastTimestamp="2026-01-01T00:00:01Z", eventTime=None)
    second = event("second", eventTime="2026-01-01T00:00:02.000000Z")
    repeated = event("repeated", eventTime="2026-01-01T00:00:00Z", series={"lastObservedTime": "2026-01-01T00:00:03Z"})
    normal = {"type": "Normal", "note": "normal", "eventTime": "2026-01-01T00:00:09Z"}
    earlier = event("no node", eventTime="2026-01-01T00:00:08Z", reason="FailedScheduling")
    assert newest_warning([normal, earlier]) is None
    assert newest_warning([second, first, normal, earlier]) == "second"
    assert newest_warning([second, repeated, first]) == "repeated"


def test_reader_that_is_ending_is_reported_when_it_takes_long() -> None:
    ending = pod({"type": "Ready", "status": "True"}, scheduled("True"), phase="Running")
    ending |= {"metadata": {"deletionTimestamp": "2026-01-01T00:00:20Z"}, "spec": {"nodeName": "node-1"}}
    assert not is_running(ending)
    assert not is_stuck(ending, NOW)
    warning = overdue_end(ending, NOW)
    assert problem_of(ending, "runs", warning) == (
        f"{BEGIN}its earlier reader on node node-1 does not end. If the node is lost, delete it from the cluster."
    )
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:40Z"
    assert overdue_end(ending, NOW) is None
    assert overdue_end(pod(phase="Running"), NOW) is None


def test_end_and_readiness() -> None:
    ready = pod({"type": "Ready", "status": "True"}, phase="Running")
    assert is_running(ready)
    assert not is_running(pod(phase="Running"))
    assert not has_ended(ready)
    assert has_ended(pod(phase="Succeeded"))
    assert has_ended(pod(phase="Failed"))
    assert has_ended({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}})
