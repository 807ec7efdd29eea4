"""Final values of progress."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.unit.operator.trainingjob.state_model import observed_of
from trainyard_crds.report import InvalidRow, InvalidRows, Outcome, Termination
from trainyard_operator.trainingjob.final_status import final_values
from trainyard_operator.trainingjob.model import Observed

NOW = datetime(2026, 1, 2, 10, tzinfo=UTC)
KNOWN = {"stage": "Training", "step": 120, "totalSteps": 320, "percent": 37.5, "remainingSeconds": 60}


def observed() -> Observed:
    job = {"metadata": {"name": "tune", "uid": "u"}, "spec": {}, "status": {"progress": KNOWN}}
    return observed_of(job)


def test_attempt_without_steps_keeps_earlier_progress() -> None:
    termination = Termination(outcome=Outcome.FAILED, exit_code=69, reason="SourceUnreachable")
    values = final_values(observed(), termination, NOW)
    assert values["progress"] == KNOWN | {"remainingSeconds": None}
    assert (values["summary"]["step"], values["summary"]["progress"]) == ("120/320", "37%")


def test_attempt_that_lost_steps_reports_its_own_step() -> None:
    termination = Termination(
        outcome=Outcome.INTERRUPTED, exit_code=75, reason="Interrupted", step=100, total_steps=320
    )
    values = final_values(observed(), termination, NOW)
    assert (values["summary"]["step"], values["summary"]["eta"]) == ("100/320", None)


def test_skipped_rows_are_a_final_value() -> None:
    skipped = InvalidRows(count=2, first=[InvalidRow(row="train.jsonl, row 17", message="Field 'text' is missing.")])
    termination = Termination(outcome=Outcome.FINISHED, exit_code=0, reason="TrainingFinished", invalid_rows=skipped)
    assert final_values(observed(), termination, NOW)["invalidRows"] == skipped.to_json()
