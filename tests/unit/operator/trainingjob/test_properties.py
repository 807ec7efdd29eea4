"""Properties of every plan: it settles, can be repeated, and a final status never changes."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.trainingjob.state_model import (
    CHILD,
    CHILD_UID,
    DAY,
    JobModel,
    at,
    merged,
    suspends,
)
from tests.unit.operator.trainingjob.strategies import TIMES, exporting_models, models, pods
from trainyard_crds.trainingjob_status import FINAL_PHASES, TrainingJobStatus


@settings(max_examples=400)
@given(models())
def test_plan_settles_with_a_valid_status(model: JobModel) -> None:
    for _ in range(4):
        planned = model.plan()
        assert planned.need is None
        model.apply(planned)
    last = model.plan()
    assert last.status is None
    assert last.note is None
    assert not last.create
    assert suspends(last) is None
    TrainingJobStatus.model_validate(model.job.get("status", {}))


@settings(max_examples=300)
@given(models(), models())
def test_final_status_never_changes(model: JobModel, later: JobModel) -> None:
    model.apply(model.plan())
    status = copy.deepcopy(model.job.get("status", {}))
    if status.get("phase") not in FINAL_PHASES:
        return
    later.job = merged(later.job, {"status": status})
    planned = later.plan()
    assert (planned.status, planned.create, suspends(planned), planned.note) == (None, (), None, None)


@settings(max_examples=300)
@given(exporting_models())
def test_exports_settle_one_at_a_time_and_change_nothing_else(model: JobModel) -> None:
    before = copy.deepcopy(model.job["status"])
    for _ in range(8):
        planned = model.plan()
        assert planned.need is None
        assert len([body for body in planned.create if body["kind"] == "Job"]) <= 1
        assert set(planned.status or {}) <= {"exports", "observedGeneration"}
        model.apply(planned)
    last = model.plan()
    assert (last.status, last.note, last.create, last.patches, last.delete) == (None, None, (), (), ())
    after = model.job["status"]
    assert {**after, "exports": None, "observedGeneration": None} == {
        **before,
        "exports": None,
        "observedGeneration": None,
    }
    for entry in before["exports"]:
        assert entry in after["exports"], "finished entries never change"
    TrainingJobStatus.model_validate(after)


@settings(max_examples=300)
@given(models())
def test_suspended_or_stopped_job_has_no_running_pod(model: JobModel) -> None:
    model.apply(model.plan())
    if model.job.get("status", {}).get("phase") not in ("Suspended", "Stopped"):
        return
    assert all(pod.get("gone") or pod["status"]["phase"] in ("Succeeded", "Failed") for pod in model.pods.values())


@settings(max_examples=300)
@given(models())
def test_running_job_leaves_the_gateways_fields_alone(model: JobModel) -> None:
    planned = model.plan()
    if planned.status is None or planned.status.get("phase") != "Running":
        return
    assert not {"progress", "metrics", "gpus", "checkpoints"} & set(planned.status)
    assert set(planned.status.get("summary", {})) <= {"gpus"}


@st.composite
def groups(draw: st.DrawFn) -> JobModel:
    """Jobs on two nodes, mostly with running pods."""
    model = JobModel()
    model.job = merged(model.job, {"spec": {"resources": {"nodes": 2}}, "status": {"jobName": CHILD}})
    model.child = {
        "metadata": {"name": CHILD, "uid": CHILD_UID, "resourceVersion": "7", "creationTimestamp": f"{DAY}10:00:00Z"},
        "spec": {"suspend": False},
        "status": {},
    }
    for name in ("0-a", "1-a", "1-b", "0-b")[: draw(st.integers(1, 4))]:
        model.pods[name] = draw(pods(name))
        if draw(st.booleans()):
            state = {"name": "trainer", "state": {"running": {"startedAt": draw(TIMES)}}}
            model.pods[name]["status"] = {"phase": "Running", "containerStatuses": [state]}
    model.now = at("10:01:00")
    return model


@settings(max_examples=300)
@given(groups())
def test_gang_is_running_only_when_every_pod_runs_or_succeeded(model: JobModel) -> None:
    model.apply(model.plan())
    if model.job["status"].get("phase") != "Running":
        return
    fine = {name.partition("-")[0] for name, pod in model.pods.items() if _runs_or_is_done(pod)}
    assert fine == {"0", "1"}


def _runs_or_is_done(pod: dict[str, Any]) -> bool:
    status = pod["status"]
    state: dict[str, Any] = next((entry["state"] for entry in status.get("containerStatuses", [])), {})
    if status["phase"] == "Running" and state.get("terminated", {}).get("exitCode") == 0:
        return True
    return status["phase"] == "Succeeded" or (
        "running" in state and status["phase"] != "Failed" and not pod.get("gone")
    )


@settings(max_examples=300)
@given(models())
def test_start_of_a_gang_counts_as_one_attempt(model: JobModel) -> None:
    leaders = [name for name in model.pods if not name.startswith("1-")]
    for _ in range(3):
        model.apply(model.plan())
    status = model.job.get("status", {})
    counts = status.get("attemptCounts", {"total": 0, "failed": 0, "restartsWithoutProgress": 0})
    assert counts["total"] <= len(leaders)
    assert counts["failed"] + counts["restartsWithoutProgress"] <= counts["total"]
    assert not [entry for entry in status.get("attempts", []) if entry["podUID"].startswith("pod-1-")]
