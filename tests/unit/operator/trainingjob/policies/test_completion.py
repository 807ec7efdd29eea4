"""The end of a job whose training Job finished."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import attempt, child, condition, context, ended, pod, report, time
from tests.unit.operator.trainingjob.state_model import CHILD
from trainyard_operator.reconcile.plan import LOG, Need
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import complete

COMPLETE = child(condition("Complete"))
FAILED = child(condition("Failed", reason="PodFailurePolicy", message="Container trainer failed."))
EXHAUSTED = child(condition("Failed", reason="BackoffLimitExceeded", message="Job has reached the backoff limit."))
LOGS = {(LOG, f"{CHILD}-a"): "line\nsecret token=hf_abcdefghijkl"}


def decided(*args: Any, **values: Any) -> Decision:
    found = complete(context(*args, **values))
    assert isinstance(found, Decision)
    return found


def test_reported_success_succeeds() -> None:
    found = decided(ended(message=report(message="Trained.")), child=COMPLETE)
    assert (found.phase, found.reason, found.message) == ("Succeeded", "TrainingFinished", "Trained.")


@pytest.mark.parametrize(
    ("job", "end", "reason", "message"),
    [
        (FAILED, ended(code=64), "BadConfiguration", "The configuration cannot work."),
        (FAILED, ended(code=65, message=report("Failed", 65, advice="Fix it.")), "Reported", "Done. Fix it."),
        (
            EXHAUSTED,
            ended(code=70),
            "InternalError",
            "The trainer failed unexpectedly. Attempts that count as faults: 1, spec.retry.limit: 3.",
        ),
    ],
    ids=["exit code", "termination message", "retries exhausted"],
)
def test_failed_job_has_the_reason_of_its_last_pod(job: Any, end: Any, reason: str, message: str) -> None:
    assert complete(context(end, child=job)) == Need(LOG, f"{CHILD}-a", "trainer")
    found = decided(end, child=job, answers=LOGS)
    assert (found.phase, found.reason, found.message) == ("Failed", reason, message)
    assert found.log_tail == "line\nsecret token=[redacted]"


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        ({}, "PodFailurePolicy", "Container trainer failed."),
        (
            {
                "attempts": [attempt(finishedAt=time("10:05:00"), reason="Evicted", message="The pod was evicted.")],
                "attemptCounts": {"total": 1},
            },
            "Evicted",
            "The pod was evicted.",
        ),
    ],
    ids=["Job controller", "recorded attempt"],
)
def test_failed_job_without_pod_uses_what_is_known(status: dict[str, Any], reason: str, message: str) -> None:
    found = decided(child=FAILED, status=status)
    assert (found.phase, found.reason, found.message, found.log_tail) == ("Failed", reason, message, None)


def test_unreported_result_is_read_by_a_check_job() -> None:
    found = decided(ended(), child=COMPLETE)
    assert found.phase is None
    [job] = found.create
    assert job["metadata"]["name"] == f"{CHILD}-check"
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:1"


@pytest.mark.parametrize(
    ("check", "state", "phase", "reason"),
    [
        (child(), None, None, ""),
        (child(), {"running": {}}, None, ""),
        (child(), {"terminated": {"exitCode": 0, "message": report()}}, "Succeeded", "TrainingFinished"),
        (child(), {"terminated": {"exitCode": 0, "message": report("Interrupted", 75)}}, "Failed", "ResultUnknown"),
        (child(condition("Failed")), {"terminated": {"exitCode": 66, "message": ""}}, "Failed", "ResultUnknown"),
        (child(condition("Complete")), None, "Failed", "ResultUnknown"),
    ],
    ids=["created", "running", "finished", "interrupted", "failed", "no pod"],
)
def test_check_job_decides(check: Any, state: Any, phase: str | None, reason: str) -> None:
    if state and "terminated" in state:
        made = ended(code=state["terminated"]["exitCode"], message=state["terminated"]["message"])
    else:
        made = pod(state=state)
    pods = () if state is None else (made,)
    found = decided(child=COMPLETE, check=check, check_pods=pods, status={"runUri": "pvc://a/b"})
    assert (found.phase, found.reason) == (phase, reason)
    if reason == "ResultUnknown":
        assert "See pvc://a/b;" in found.message
