from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_crds.trainingjob_status import TrainingJobStatus
from trainyard_gateway.intake.errors import ReportRejectedError
from trainyard_gateway.intake.report_schema import ReportUpdate, parse_kubeflow_report, parse_report

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
CHECKPOINT = {"name": "step-10-e1", "step": 10, "bytes": 5, "digest": "sha256:0", "createdAt": "2026-06-01T11:59:00Z"}
PROGRESS = {
    "stage": "Training",
    "step": 12,
    "totalSteps": 40,
    "percent": 30.0,
    "updatedAt": "2026-06-01T13:59:58+02:00",
}


def report(**changes: Any) -> bytes:
    document = {"sequence": 3, "ownerEpoch": 1, "progress": PROGRESS, "metrics": {"loss": 0.5}}
    return json.dumps(document | changes).encode()


def kubeflow(**changes: Any) -> bytes:
    return json.dumps({"trainerStatus": changes}).encode()


def test_report_becomes_status_fields() -> None:
    update = parse_report(report(checkpoints=[CHECKPOINT]), NOW)
    fields = update.status_fields({"progress": {"step": 99, "epoch": 4.0}})
    assert update.order == 3
    assert fields["progress"] == PROGRESS | {"updatedAt": "2026-06-01T11:59:58Z"}
    assert fields["summary"] == {"progress": "30%", "step": "12/40", "loss": "0.5", "eta": None}
    assert fields["gpus"] == []
    assert fields["checkpoints"][0]["name"] == "step-10-e1"
    TrainingJobStatus.model_validate(fields)


def test_skipped_rows_become_a_status_field() -> None:
    invalid = {"count": 3, "first": [{"row": "train.jsonl, row 17", "message": "Field 'text' is missing."}]}
    fields = parse_report(report(invalidRows=invalid), NOW).status_fields({})
    assert fields["invalidRows"] == invalid
    assert "invalidRows" not in parse_report(report(), NOW).status_fields({})
    TrainingJobStatus.model_validate(fields)


def test_report_without_a_time_gets_the_current_time() -> None:
    assert parse_report(report(progress={"step": 1}), NOW).progress["updatedAt"] == "2026-06-01T12:00:00Z"


BAD = {
    "empty": (b"", 400, "empty"),
    "not JSON": (b"step=3", 400, "not a JSON document"),
    "not UTF-8": (b'{"sequence": "\xff"}', 400, "not a JSON document"),
    "too deep": (b"[" * 60_000, 400, "nested too deeply"),
    "NaN": (report().replace(b"0.5", b"NaN"), 400, "NaN is not a number"),
    "infinity": (report().replace(b"30.0", b"-Infinity"), 400, "-Infinity is not a number"),
    "overflow": (report().replace(b"30.0", b"1e999"), 422, "at progress.percent: the number is too large"),
    "huge integer": (report(sequence=2**60), 422, "at sequence: the number is larger"),
    "a list": (b"[]", 422, "at the body"),
    "text for a number": (report(sequence="3"), 422, "at sequence: input should be a valid integer"),
    "a flag for a number": (report(progress={"step": True}), 422, "at progress.step"),
    "a number for text": (report(gpus=[{"name": 1, "memoryUsed": 1, "memoryTotal": 1}]), 422, "gpus.0"),
    "negative": (report(progress={"step": -1}), 422, "at progress.step"),
    "percent": (report(progress={"percent": 101.0}), 422, "at progress.percent"),
    "stage": (report(progress={"stage": "Dreaming"}), 422, "at progress.stage"),
    "unknown field": (report(phase="Succeeded"), 422, "at phase: extra inputs are not permitted"),
    "missing": (b'{"sequence": 1}', 422, "field required"),
    "future": (report(progress={"updatedAt": "2026-06-01T12:05:01Z"}), 422, "more than 5 minutes in the future"),
    "no such day": (report(progress={"updatedAt": "2026-02-30T12:00:00Z"}), 422, "does not exist"),
    "first year": (report(progress={"updatedAt": "0001-01-01T00:00:00+23:00"}), 422, "does not exist"),
    "no zone": (report(progress={"updatedAt": "2026-06-01T12:00:00"}), 422, "RFC 3339"),
    "future checkpoint": (
        report(checkpoints=[CHECKPOINT | {"createdAt": "2027-06-01T12:00:00Z"}]), 422, "at checkpoints.0.createdAt"
    ),
    "twice": (report(checkpoints=[CHECKPOINT, CHECKPOINT]), 422, "appears twice"),
    "metric's name": (report(metrics={"": 1.0}), 422, "at metrics: '' is not a metric name"),
    "checkpoint metric": (report(checkpoints=[CHECKPOINT | {"metrics": {"a b": 1}}]), 422, "checkpoints.0.metrics"),
    "many metrics": (report(metrics={f"m{number}": 1.0 for number in range(65)}), 422, "at metrics"),
    "control characters": (report(progress={"stage": "\x1b[2J"}), 422, "control characters"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "sentence"), BAD.values(), ids=BAD)
def test_invalid_report_is_rejected_with_the_cause(body: bytes, code: int, sentence: str) -> None:
    with pytest.raises(ReportRejectedError) as caught:
        parse_report(body, NOW)
    assert caught.value.code == code
    assert sentence in caught.value.message


def test_small_clock_skew_is_accepted() -> None:
    progress = parse_report(report(progress={"updatedAt": "2026-06-01T12:04:59Z"}), NOW).progress
    assert progress["updatedAt"] == "2026-06-01T12:04:59Z"


def kubeflow_progress(step: int, **extra: str) -> ReportUpdate:
    counters = {"current_step": str(step), "total_steps": "300", "current_epoch": "0.5"} | extra
    metrics = [{"name": name, "value": value} for name, value in counters.items()]
    body = kubeflow(
        progressPercentage=step // 3,
        estimatedRemainingSeconds=90,
        lastUpdatedTime="2026-06-01T11:59:59.250000+00:00",
        metrics=metrics,
    )
    return parse_kubeflow_report(body, NOW)


def test_kubeflow_counters_become_progress_and_texts_become_numbers() -> None:
    update = kubeflow_progress(100, loss="0.25", grad_norm="1e-1", eval_loss="2", note="fine", bad="nan", worse="inf")
    fields = update.status_fields({})
    assert fields["progress"] == {
        "stage": "Training", "step": 100, "totalSteps": 300, "epoch": 0.5, "percent": pytest.approx(33.3333, abs=1e-3),
        "remainingSeconds": 90, "updatedAt": "2026-06-01T11:59:59Z",
    }  # fmt: skip
    assert fields["metrics"] == {"loss": 0.25, "gradNorm": 0.1, "evalLoss": 2.0}
    assert fields["summary"] == {"progress": "33%", "step": "100/300", "loss": "0.25", "eta": "1m30s"}
    assert not {"gpus", "checkpoints"} & set(fields)
    TrainingJobStatus.model_validate(fields)


def test_kubeflow_run_starts_at_step_0() -> None:
    begin = parse_kubeflow_report(
        kubeflow(progressPercentage=0, metrics=[{"name": "total_steps", "value": "300"}]), NOW
    )
    assert begin.status_fields({"progress": {"step": 7}})["summary"]["step"] == "0/300"


def test_kubeflow_100_percent_keeps_the_counters_and_the_stage() -> None:
    previous = kubeflow_progress(100).status_fields({})
    end = parse_kubeflow_report(kubeflow(progressPercentage=100, estimatedRemainingSeconds=0, metrics=[]), NOW)
    progress = end.status_fields(previous)["progress"]
    assert (progress["stage"], progress["step"], progress["totalSteps"], progress["percent"]) == (
        "Training",
        100,
        300,
        100,
    )


def test_kubeflow_eta_is_not_inherited() -> None:
    empty = parse_kubeflow_report(kubeflow(), NOW)
    assert "remainingSeconds" not in empty.status_fields(kubeflow_progress(100).status_fields({}))["progress"]
    assert empty.order is None


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        (b"", 400, "empty"),
        (b"{}", 422, "trainerStatus"),
        (kubeflow(progressPercentage="50"), 422, "trainerStatus.progressPercentage"),
        (kubeflow(progressPercentage=101), 422, "trainerStatus.progressPercentage"),
        (kubeflow(metrics=[{"name": "loss", "value": 0.5}]), 422, "trainerStatus.metrics.0.value"),
        (kubeflow(lastUpdatedTime="2026-06-01T12:06:00Z"), 422, "trainerStatus.lastUpdatedTime"),
        (kubeflow(lastUpdatedTime="yesterday"), 422, "trainerStatus.lastUpdatedTime"),
    ],
)
def test_invalid_kubeflow_report_is_rejected(body: bytes, code: int, place: str) -> None:
    with pytest.raises(ReportRejectedError) as caught:
        parse_kubeflow_report(body, NOW)
    assert caught.value.code == code
    assert place in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["sequence", "ownerEpoch", "progress", "trainerStatus", "metrics", "name", "value", "step"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(document=JSON)
@pytest.mark.parametrize("parse", [parse_report, parse_kubeflow_report])
def test_any_document_is_parsed_or_rejected(parse: Any, document: Any) -> None:
    try:
        fields = parse(json.dumps(document).encode(), NOW).status_fields({})
    except ReportRejectedError:
        return
    TrainingJobStatus.model_validate(fields)


@given(body=st.binary(max_size=80))
def test_arbitrary_bytes_are_rejected_cleanly(body: bytes) -> None:
    with pytest.raises(ReportRejectedError):
        parse_report(body, NOW)
