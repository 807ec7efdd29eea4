"""Why the container of a started job does not run yet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import GANG, attempt, child, condition, context, pod, running, time
from tests.unit.operator.trainingjob.state_model import ADMITTED, CHILD
from trainyard_operator.trainingjob.policies.pending_reason import pending_reason

STARTS = f"The Job {CHILD} starts its pod, which gets its node, image and volumes."
IMAGE = "The image registry.local/trainer:1"
ENDED = {
    "attempts": [attempt(finishedAt=time("10:05:00"), reason="R", message="The pod was evicted.")],
    "attemptCounts": {"total": 1},
}


def waiting(reason: str, message: str = "", name: str = "a") -> dict[str, Any]:
    return pod(name, {"waiting": {"reason": reason, "message": message}})


def unscheduled(name: str = "a") -> dict[str, Any]:
    entry = condition("PodScheduled", holds=False, reason="Unschedulable", message="0/2 nodes are available.")
    return pod(name, status={"conditions": [entry]})


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (pod(), "JobCreated", STARTS),
        (waiting("ContainerCreating"), "JobCreated", STARTS),
        (waiting("PodInitializing"), "JobCreated", STARTS),
        (unscheduled(), "Unschedulable", "No node can take the pod: 0/2 nodes are available."),
        (
            waiting("ErrImagePull", "no such host"),
            "ImagePullBackOff",
            f"{IMAGE} cannot be pulled: no such host.",
        ),
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "a": ErrImagePull: no such host'),
            "ImagePullBackOff",
            f"{IMAGE} cannot be pulled: no such host.",
        ),
        (waiting("InvalidImageName"), "InvalidImageName", f"{IMAGE} cannot be pulled."),
        (
            waiting("CreateContainerConfigError", 'secret "hub" not found'),
            "CreateContainerConfigError",
            'The container cannot be set up: secret "hub" not found. Create what is missing.',
        ),
        (waiting("Odd", "token=abcdefgh"), "Odd", "The container waits: token=[redacted]."),
        (waiting("Odd"), "Odd", "The container waits: Odd."),
    ],
    ids=["new", "creating", "init", "unscheduled", "pull", "pull backoff", "image name", "config", "secret", "odd"],
)
def test_pod_waits(found: Any, reason: str, message: str) -> None:
    assert pending_reason(context(found, child=child())) == (reason, message)


def test_pod_that_waits_for_a_new_node_says_so() -> None:
    growth = ADMITTED._replace(elastic=True, growth="It waits for the pool a100.")
    expected = "It waits for the pool a100. No node can take the pod: 0/2 nodes are available."
    assert pending_reason(context(unscheduled(), child=child(), admission=growth)) == ("WaitingForNodes", expected)
    assert pending_reason(context(pod(), child=child(), admission=growth)) == ("JobCreated", STARTS)


@pytest.mark.parametrize(
    ("now", "reason"), [("10:00:29", "JobCreated"), ("10:00:30", "NoPod")], ids=["just created", "for a while"]
)
def test_job_without_pod(now: str, reason: str) -> None:
    found, message = pending_reason(context(child=child(), now=now))
    assert found == reason
    assert ("kubectl describe job" in message) is (reason == "NoPod")


def test_job_without_pod_states_the_message_of_the_job_controller() -> None:
    refused = 'Error creating: admission webhook "x.y.z" denied the request: token=abcdefgh'
    seen = context(child=child(), now="10:00:30", answers={("failed-create", CHILD): refused})
    found = pending_reason(seen)
    expected = 'Error creating: admission webhook "x.y.z" denied the request: token=[redacted]'
    assert found == ("NoPod", f"The Job {CHILD} gets no pod: {expected}.")


@pytest.mark.parametrize(
    ("now", "reason"), [("10:00:29", "JobCreated"), ("10:00:30", "QuotaExceeded")], ids=["just created", "for a while"]
)
def test_quota_that_refuses_pods(now: str, reason: str) -> None:
    admission = ADMITTED._replace(quota="The quota gpus is used up.")
    found, message = pending_reason(context(child=child(), now=now, admission=admission))
    assert found == reason
    assert (message == "The quota gpus is used up.") is (reason == "QuotaExceeded")


@pytest.mark.parametrize(
    ("job", "spec", "reason", "message"),
    [
        (child(), {}, "Restarting", "Attempt 1 ended: The pod was evicted. The next attempt follows."),
        (
            child(),
            GANG,
            "Restarting",
            "Attempt 1 ended: The pod was evicted. The group starts again from the last checkpoint.",
        ),
        (child(condition("Suspended", since="10:06:00")), {}, "Resuming", "The job resumes where it was."),
        (child(condition("Suspended", holds=False, since="10:06:00")), {}, "Resuming", "The job resumes where it was."),
        (
            child(condition("Suspended", holds=False, since="10:01:00")),
            {},
            "Restarting",
            "Attempt 1 ended: The pod was evicted. The next attempt follows.",
        ),
    ],
    ids=["restarts", "gang restarts", "suspended", "resumed since", "resumed before"],
)
def test_job_between_attempts(job: Any, spec: dict[str, Any], reason: str, message: str) -> None:
    seen = context(child=job, spec=spec, status=ENDED, answers={("pods", f"{CHILD}-a"): None})
    assert pending_reason(seen) == (reason, message)


@pytest.mark.parametrize(
    ("pods", "reason", "message"),
    [
        ((), "NoPod", None),
        ((pod("0-a"), pod("1-a")), "JobCreated", STARTS),
        (
            (running("0-a"), pod("1-a")),
            "JobCreated",
            f"The Job {CHILD} starts its pods, which get their nodes, image and volumes. 1 of 2 pods run.",
        ),
        (
            (running("0-a"), unscheduled("1-a")),
            "Unschedulable",
            "No node can take the pod: 0/2 nodes are available. 1 of 2 pods run.",
        ),
        (
            (unscheduled("0-a"), waiting("Odd", name="1-a")),
            "Unschedulable",
            "No node can take the pod: 0/2 nodes are available. 0 of 2 pods run.",
        ),
    ],
    ids=["no pods", "all pending", "one runs", "one unscheduled", "first pod first"],
)
def test_gang_reports_its_first_pending_pod(pods: tuple[Any, ...], reason: str, message: str | None) -> None:
    found = pending_reason(context(*pods, child=child(), spec=GANG))
    assert found[0] == reason
    assert message in (None, found[1])
