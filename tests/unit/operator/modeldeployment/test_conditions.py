"""Conditions by kstatus: Ready, Reconciling and Stalled of every situation."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard_crds.modeldeployment_status import AdapterState, AdapterStatus
from trainyard_operator.modeldeployment.conditions import View, conditions_of, message_of
from trainyard_operator.modeldeployment.failures import Failure

LOADED = AdapterStatus(name="bot", state=AdapterState.LOADED, ready_replicas=1)
LOADING = AdapterStatus(name="bot", state=AdapterState.LOADING)
FAILED = AdapterStatus(name="other", state=AdapterState.FAILED, reason="RankTooLarge", message="Its rank is 64.")
CRASH = Failure("EngineFailed", "The engine ended.", "bot-1")
FINAL = Failure("FetchNotFound", "There is no such model.", "bot-1", final=True)
WAITS = ("WaitingForTrainingJob", "Waits for TrainingJob tune.")
BROKEN = ("TrainingJobFailed", "TrainingJob tune failed.")


def view(**changes: Any) -> View:
    fields: dict[str, Any] = {
        "stopped": False,
        "wanted": 1,
        "ready": 1,
        "updated": 1,
        "exist": 1,
        "adapters": [],
        "rollout": "One by one.",
    }
    return View(**{**fields, **changes})


NOTHING = {"ready": 0, "updated": 0, "exist": 0}
STARTING = {"ready": 0, "updated": 0}
CASES: list[tuple[str, dict[str, Any], tuple[str, str], tuple[str, str], tuple[str, str]]] = [
    ("serving", {}, ("True", "Serving"), ("False", "Reconciled"), ("False", "NotStalled")),
    ("first start", STARTING, ("False", "ReplicasStarting"), ("True", "ReplicasStarting"), ("False", "NotStalled")),
    ("waits for a job", {**NOTHING, "waits": WAITS}, ("False", WAITS[0]), ("True", WAITS[0]), ("False", "NotStalled")),
    ("job failed", {**NOTHING, "obstacle": BROKEN}, ("False", BROKEN[0]), ("False", "Reconciled"), ("True", BROKEN[0])),
    (
        "engine crashes",
        {**STARTING, "failure": CRASH},
        ("False", "EngineFailed"),
        ("True", "EngineFailed"),
        ("False", "NotStalled"),
    ),
    (
        "no such model",
        {**STARTING, "failure": FINAL},
        ("False", "FetchNotFound"),
        ("False", "Reconciled"),
        ("True", "FetchNotFound"),
    ),
    ("rollout", {"updated": 0, "exist": 2}, ("True", "Serving"), ("True", "RollingOut"), ("False", "NotStalled")),
    ("scaled up", {"wanted": 2}, ("True", "Serving"), ("True", "RollingOut"), ("False", "NotStalled")),
    ("zero", {**NOTHING, "wanted": 0}, ("True", "ScaledToZero"), ("False", "Reconciled"), ("False", "NotStalled")),
    ("to zero", {"wanted": 0}, ("True", "Serving"), ("True", "Stopping"), ("False", "NotStalled")),
    (
        "stopped",
        {**NOTHING, "wanted": 0, "stopped": True},
        ("True", "Stopped"),
        ("False", "Reconciled"),
        ("False", "NotStalled"),
    ),
    (
        "adapter loads",
        {"adapters": [LOADING]},
        ("True", "Serving"),
        ("True", "AdaptersLoading"),
        ("False", "NotStalled"),
    ),
    (
        "its own adapter loads",
        {"adapters": [LOADING], "main_adapter": "bot"},
        ("False", "AdaptersLoading"),
        ("True", "AdaptersLoading"),
        ("False", "NotStalled"),
    ),
    (
        "adapter failed",
        {"adapters": [LOADED, FAILED]},
        ("True", "Serving"),
        ("False", "Reconciled"),
        ("True", "AdapterFailed"),
    ),
]


@pytest.mark.parametrize(
    ("changes", "ready", "reconciling", "stalled"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_kstatus(
    changes: dict[str, Any], ready: tuple[str, str], reconciling: tuple[str, str], stalled: tuple[str, str]
) -> None:
    found = conditions_of(view(**changes))
    shown = {kind: (str(entry.holds), entry.reason) for kind, entry in found.items() if entry is not None}
    assert (shown["Ready"], shown["Reconciling"], shown["Stalled"]) == (ready, reconciling, stalled)
    assert not (shown["Reconciling"][0] == shown["Stalled"][0] == "True")


@pytest.mark.parametrize("changes", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_message_is_that_of_the_most_urgent_condition(changes: dict[str, Any]) -> None:
    found = conditions_of(view(**changes))
    assert message_of(found)
    if "obstacle" in changes:
        assert message_of(found) == BROKEN[1]


def test_scaled_to_zero_and_stopped_are_conditions_of_their_own() -> None:
    zero = conditions_of(view(**NOTHING, wanted=0))
    assert zero["ScaledToZero"] is not None
    assert zero["ScaledToZero"].holds
    stopped = conditions_of(view(**NOTHING, wanted=0, stopped=True))
    assert stopped["ScaledToZero"] is not None
    assert not stopped["ScaledToZero"].holds
    assert stopped["Stopped"] is not None
    assert stopped["Stopped"].holds


def test_adapters_ready_names_the_failed_ones() -> None:
    found = conditions_of(view(adapters=[LOADED, FAILED]))["AdaptersReady"]
    assert found is not None
    assert not found.holds
    assert "Adapter other: Its rank is 64." in found.message
