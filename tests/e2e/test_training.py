"""The example that a new user applies: progress, final status, Events, result."""

from __future__ import annotations

from typing import Any

import pytest

from demo.compare import compare
from demo.manifest import load
from tests.e2e.support import EXAMPLE, TIMEOUT, Site, condition

NAME = "python-docs"


@pytest.fixture(scope="module")
def history(site: Site) -> list[dict[str, Any]]:
    """Every status while the example ran, oldest first."""
    site.kubectl.apply(load(EXAMPLE))
    seen: list[dict[str, Any]] = []

    def look() -> dict[str, Any]:
        status = site.status(NAME)
        if status and (not seen or status != seen[-1]):
            seen.append(status)
        return status

    site.kubectl.wait("the example finishes", look, lambda s: s.get("phase") in ("Succeeded", "Failed"), TIMEOUT)
    assert seen[-1]["phase"] == "Succeeded", f"{seen[-1].get('message')}\n{seen[-1].get('logTail')}"
    return seen


def test_phase_progress_step_loss_and_eta_change_during_training(history: list[dict[str, Any]]) -> None:
    phases = list(dict.fromkeys(s["phase"] for s in history))
    # For a pod that runs at once, one status write covers Starting and Running.
    assert [p for p in phases if p not in ("Queued", "Starting")] == ["Running", "Succeeded"]
    running = [s["summary"] for s in history if s["phase"] == "Running" and s.get("summary", {}).get("progress")]
    for column in ("progress", "step", "loss", "eta"):
        assert len({row[column] for row in running if row.get(column)}) >= 3, f"{column} did not move: {running}"
    steps = [s["progress"]["step"] for s in history if s.get("progress")]
    assert steps == sorted(steps)


def test_kubectl_wait_and_columns(site: Site, history: list[dict[str, Any]]) -> None:
    site.kubectl.run("wait", "--for=condition=Complete", f"tj/{NAME}", "--timeout=300s")
    table = site.kubectl.run("get", "tj", NAME)
    assert table.splitlines()[0].split() == ["NAME", "PHASE", "PROGRESS", "STEP", "LOSS", "ETA", "GPUS", "AGE"]
    assert "Succeeded" in table
    assert "100%" in table
    assert history[-1]["progress"]["stage"] == "Finished"


def test_final_status_is_complete(history: list[dict[str, Any]]) -> None:
    status = history[-1]
    assert condition(status, "Complete")["reason"] == "TrainingFinished"
    assert condition(status, "Running")["status"] == "False"
    assert status["attempts"][0]["exitCode"] == 0
    assert status["exports"][0]["format"] == "adapter"
    assert status["exports"][0]["uri"].startswith(f"pvc://{NAME}-")
    assert sum(c["best"] for c in status["checkpoints"]) == 1
    assert status["model"]["source"] == "pvc://inputs/model"


def test_held_out_loss_falls_and_depends_on_the_question(site: Site, history: list[dict[str, Any]]) -> None:
    metrics = history[-1]["metrics"]
    assert metrics["evalLoss"] <= 0.7 * metrics["baselineEvalLoss"]
    found = compare(site.kubectl, site.images["trainer"], NAME)
    assert found.after < found.after_shuffled
    assert found.after <= 0.7 * found.before


def test_one_event_per_transition(site: Site, history: list[dict[str, Any]]) -> None:
    reasons = site.wait_event(NAME, "Succeeded")
    assert len(reasons) == len(set(reasons)), reasons
    assert {status["phase"] for status in history} <= set(reasons)
    assert reasons[-2:] == ["Running", "Succeeded"]
