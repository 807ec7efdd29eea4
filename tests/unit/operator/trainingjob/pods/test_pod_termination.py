"""Reason, message, advice and action of pod ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import merged, new_pod
from trainyard_crds.exitcodes import EXIT_CODES, ExitCode, OnExit
from trainyard_operator.trainingjob.pods.pod_termination import ContainerMemory, pod_ending
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
        (merged(new_pod("a", ""), {"status": {"phase": "Failed", "reason": "Evicted"}}), "Evicted", OnExit.COUNT, ""),
        (merged(new_pod("a", ""), {"gone": True}), "PodLost", OnExit.IGNORE, "before its end was seen"),
    ],
)
def test_reason_and_message_of_an_end(pod: dict[str, Any], reason: str, action: OnExit, words: str) -> None:
    end = pod_ending(pod, MEMORY)
    assert end is not None
    assert (end.reason, end.action) == (reason, action)
    assert words in end.message


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
