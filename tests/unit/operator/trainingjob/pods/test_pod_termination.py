"""Reason, message, advice and action of pod ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import at, merged, new_pod
from trainyard_crds.exitcodes import EXIT_CODES, ExitCode, OnExit
from trainyard_operator.trainingjob.pods.pod_termination import ContainerMemory, pod_ending, seconds_to_await_kubelet
from trainyard_operator.trainingjob.pods.redact import redact, tail

EVICTED = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}


MEMORY = ContainerMemory("8Gi", ("optimization.batchSize", "llm.maxLength"))


def ended(code: int, *, message: str = "", reason: str = "Error", **pod: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    status = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": state}]}
    result: dict[str, Any] = merged(merged(new_pod("a", "2026-01-02T10:00:00Z"), {"status": status}), pod)
    return result


@pytest.mark.parametrize("code", list(EXIT_CODES))
def test_known_exit_code_has_its_reason_and_action(code: ExitCode) -> None:
    end = pod_ending(ended(code), MEMORY)
    assert end is not None
    meaning = EXIT_CODES[code]
    assert (end.reason, end.action, end.message) == (meaning.reason, meaning.action, meaning.description)


@pytest.mark.parametrize(
    ("pod", "reason", "action", "words"),
    [
        (ended(137, reason="OOMKilled"), "OOMKilled", OnExit.COUNT, "memory limit of 8Gi"),
        (ended(137), "Signal9", OnExit.COUNT, "SIGKILL"),
        (ended(139), "Signal11", OnExit.COUNT, "SIGSEGV"),
        (ended(200), "Signal72", OnExit.COUNT, "signal 72"),
        (ended(255, reason="Unknown"), "NodeRestarted", OnExit.COUNT, "node"),
        (ended(137, reason="ContainerStatusUnknown"), "NodeRestarted", OnExit.COUNT, "node"),
        (ended(1, message="ImportError: no"), "UnknownExitCode", OnExit.COUNT, "Its last output: ImportError: no"),
        (ended(143, status=EVICTED), "Evicted", OnExit.IGNORE, "evicted"),
        (ended(75, status=EVICTED), "Evicted", OnExit.IGNORE, "evicted"),
        (ended(64, status=EVICTED), "Evicted", OnExit.IGNORE, "evicted"),
        (ended(128, reason="StartError", message="exec: no such file"), "StartError", OnExit.COUNT, "exec: no such"),
        (ended(70, message="key hf_abcdefghijkl"), "InternalError", OnExit.COUNT, "key [redacted]"),
        (
            merged(new_pod("a", ""), {"status": {"phase": "Failed", "reason": "Evicted"}}),
            "EvictedByKubelet",
            OnExit.COUNT,
            "more storage",
        ),
        (merged(new_pod("a", ""), {"gone": True}), "PodLost", OnExit.IGNORE, "before its end was seen"),
    ],
)
def test_reason_and_message_of_an_end(pod: dict[str, Any], reason: str, action: OnExit, words: str) -> None:
    end = pod_ending(pod, MEMORY)
    assert end is not None
    assert (end.reason, end.action) == (reason, action)
    assert words in end.message


TMP_FULL = 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi".'
POD_FULL = "Pod ephemeral local storage usage exceeds the total limit of containers 64Mi."


@pytest.mark.parametrize("code", [75, 137, 143, 255, 70], ids=["saved", "killed", "ended", "unseen", "failed"])
@pytest.mark.parametrize(
    ("detail", "advice"),
    [
        (TMP_FULL, "Raise spec.resources.tmpSize."),
        (TMP_FULL.replace("tmp", "home"), "Raise spec.resources.scratchSize."),
        (TMP_FULL.replace("tmp", "foreign"), ""),
        (POD_FULL, "LimitRange"),
    ],
    ids=["tmp", "home", "volume of another", "ephemeral storage"],
)
def test_eviction_for_storage_counts_with_the_kubelets_words_whatever_the_exit_code(
    code: int, detail: str, advice: str
) -> None:
    found = pod_ending(
        ended(code, reason="ContainerStatusUnknown", status={"reason": "Evicted", "message": detail}), MEMORY
    )
    assert found is not None
    assert (found.reason, found.action) == ("EvictedByKubelet", OnExit.COUNT)
    assert found.message == f"The kubelet evicted the pod: {detail}"
    assert advice in found.advice
    assert bool(advice) is bool(found.advice)


def test_node_pressure_is_a_free_restart_with_the_kubelets_words() -> None:
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]
    detail = "The node was low on resource: ephemeral-storage."
    end = pod_ending(ended(137, status={"reason": "Evicted", "message": detail, "conditions": conditions}), MEMORY)
    assert end is not None
    assert (end.reason, end.action) == ("NodePressure", OnExit.IGNORE)
    assert end.message.endswith(detail)


def test_other_ends_by_the_kubelet_count_with_its_reason() -> None:
    status = {"reason": "DeadlineExceeded", "message": "Pod was active longer than the deadline."}
    end = pod_ending(ended(75, status=status), MEMORY)
    assert end is not None
    assert (end.reason, end.action) == ("DeadlineExceeded", OnExit.COUNT)
    assert end.message == f"The kubelet ended the pod (DeadlineExceeded): {status['message']}"


@pytest.mark.parametrize("code", [0, 65], ids=["finished", "bad data"])
def test_verdict_of_the_trainer_comes_before_an_eviction(code: int) -> None:
    end = pod_ending(ended(code, status={"reason": "Evicted", "message": TMP_FULL}), MEMORY)
    assert end is not None
    assert end.reason != "EvictedByKubelet"


@pytest.mark.parametrize(
    ("code", "now", "phase", "seconds"),
    [
        (75, "10:05:02", "Running", 3.0),
        (137, "10:05:02", "Running", 3.0),
        (137, "10:05:06", "Running", None),
        (137, "10:05:02", "Failed", None),
        (65, "10:05:02", "Running", None),
        (0, "10:05:02", "Running", None),
    ],
    ids=["saved", "killed", "late", "verdict known", "bad data", "finished"],
)
def test_verdict_of_the_kubelet_is_awaited_for_a_moment(code: int, now: str, phase: str, seconds: float | None) -> None:
    state = {"terminated": {"exitCode": code, "finishedAt": "2026-01-02T10:05:00Z"}}
    pod = merged(ended(code), {"status": {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]}})
    assert seconds_to_await_kubelet(pod, at(now)) == seconds


def test_pod_killed_at_the_end_of_its_grace_period_has_advice() -> None:
    end = pod_ending(ended(137, metadata={"deletionTimestamp": "2026-01-02T10:00:00Z"}), MEMORY)
    assert end is not None
    assert "gracePeriodSeconds" in end.advice


def test_running_pod_has_no_ending() -> None:
    assert pod_ending(new_pod("a", ""), MEMORY) is None


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("token hf_ABCDEFGH1234", "token [redacted]"),
        ("https://user:pass@hub/x", "https://[redacted]@hub/x"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer [redacted]"),
        ("password=hunter2hunter2", "password=[redacted]"),
        ('"api_key": "0123456789"', '"api_key": "[redacted]"'),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2lnbmF0", "[redacted]"),
        ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
        ("trained 100 tokens: loss=0.1234567", "trained 100 tokens: loss=0.1234567"),
    ],
)
def test_secrets_are_redacted(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_tail_is_whole_lines_within_its_limit() -> None:
    text = "\n".join(f"line {number} äö" for number in range(1000))
    end = tail(text, 200)
    assert len(end.encode()) <= 200
    assert end.endswith("line 999 äö")
    assert end.startswith("line ")
