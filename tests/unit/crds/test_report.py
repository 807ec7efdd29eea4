"""The termination message fits the kubelet's limit."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trainyard_crds.constants import TERMINATION_LIMIT
from trainyard_crds.report import (
    ROW_LIMIT,
    ROW_MESSAGE_LIMIT,
    CheckpointStatus,
    ExportStatus,
    InvalidRow,
    InvalidRows,
    Outcome,
    Termination,
)


def checkpoint(step: int, best: bool = False) -> CheckpointStatus:
    return CheckpointStatus(
        name=f"step-{step}-e1", step=step, epoch=1.5, metrics={"evalLoss": 1.25}, bytes=10**9,
        digest="sha256:" + "a" * 64,
        uri=f"pvc://claim/trainyard/run/checkpoints/step-{step}-e1", best=best, created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


@given(
    st.integers(0, 40), st.text(max_size=1024), st.text(max_size=512),
    st.dictionaries(st.text(max_size=64), st.floats(allow_nan=False, allow_infinity=False), max_size=64),
)  # fmt: skip
def test_any_message_fits_and_parses(count: int, message: str, advice: str, metrics: dict[str, float]) -> None:
    termination = Termination(
        outcome=Outcome.FAILED, exit_code=65, reason="BadData", message=message, advice=advice, metrics=metrics,
        checkpoints=[checkpoint(step, best=step == 3) for step in range(count)],
        invalid_rows=InvalidRows(count=9, first=[InvalidRow(row="r" * ROW_LIMIT, message="m" * ROW_MESSAGE_LIMIT)] * 5),
        exports=[ExportStatus(format="adapter", uri="pvc://c/p", bytes=1, digest="sha256:" + "b" * 64)],
    )  # fmt: skip
    text = termination.to_message()
    assert len(text.encode()) <= TERMINATION_LIMIT
    assert Termination.model_validate(json.loads(text)).exit_code == 65


def test_best_and_last_checkpoint_are_kept() -> None:
    checkpoints = [checkpoint(step, best=step == 2) for step in range(30)]
    termination = Termination(outcome=Outcome.FINISHED, exit_code=0, reason="TrainingFinished", checkpoints=checkpoints)
    kept = Termination.model_validate_json(termination.to_message()).checkpoints
    assert {2, 29} <= {c.step for c in kept}
    assert len(kept) > 2
