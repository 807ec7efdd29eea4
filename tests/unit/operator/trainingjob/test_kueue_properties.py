"""Properties of every plan under Kueue: fields that Kueue owns never change."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.trainingjob.state_model import JobModel, suspends
from tests.unit.operator.trainingjob.strategies import TIMES, models
from trainyard_crds.trainingjob_status import FINAL_PHASES, TrainingJobStatus
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION, QUEUE_LABEL
from trainyard_operator.reconcile.plan import Plan
from trainyard_operator.trainingjob.children.render import TRAIN_ROLE, owner_labels
from trainyard_operator.trainingjob.kueue_adapter import PRIORITY_LABEL

REASONS = ("Pending", "Preempted", "Deactivated", "DeactivatedDueToRequeuingLimitExceeded", "Admitted")
KINDS = ("QuotaReserved", "Admitted", "Evicted", "Requeued", "PodsReady")


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any] | None:
    if draw(st.integers(0, 4)) == 0:
        return None
    conditions = [
        {
            "type": kind,
            "status": draw(st.sampled_from(["True", "False"])),
            "reason": draw(st.sampled_from(REASONS)),
            "message": draw(st.sampled_from(["", "The workload is deactivated", "1 more needed"])),
            "lastTransitionTime": draw(TIMES),
        }
        for kind in draw(st.lists(st.sampled_from(KINDS), unique=True))
    ]
    annotations = draw(st.sampled_from([{}, {HELD_ANNOTATION: "true"}]))
    return {
        "metadata": {"name": "w", "namespace": "team", "annotations": annotations},
        "spec": draw(st.sampled_from([{}, {"active": True}, {"active": False}])) | {"queueName": "gpus"},
        "status": {"conditions": conditions},
    }


@st.composite
def kueue_worlds(draw: st.DrawFn) -> JobModel:
    model = draw(models())
    model.kueue = draw(st.sampled_from([{}, {"default": "gpus"}, {"default": "gpus", "problem": "Install Kueue."}]))
    name = draw(st.sampled_from([{}, {"name": "gpus"}, {"name": "other", "priority": 9}]))
    model.job["spec"]["queue"] = name
    if model.child is not None and draw(st.booleans()):
        calm(model)
    if model.child is not None:
        ours = owner_labels(model.job, TRAIN_ROLE)
        model.child["metadata"]["labels"] = {**ours, QUEUE_LABEL: "gpus", PRIORITY_LABEL: "trainyard-p5"}
        model.workload = draw(workloads())
    return model


def calm(model: JobModel) -> None:
    """Most Jobs under Kueue wait, suspended and without a pod."""
    assert model.child is not None
    model.pods = {}
    model.child["spec"]["suspend"] = True
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": model.stamp}
    model.child["status"] = {"conditions": [suspended]}


def check(model: JobModel, planned: Plan) -> None:
    """Only two labels and spec.active change, and only a Workload that the operator deactivated is activated."""
    assert suspends(planned) is None
    for patch in planned.patches:
        if patch.kind == "jobs":
            assert patch.body["metadata"].keys() == {"labels"}
            assert patch.body["metadata"]["labels"].keys() <= {QUEUE_LABEL, PRIORITY_LABEL}
        elif patch.body["spec"] == {"active": True}:
            assert model.workload is not None
            assert HELD_ANNOTATION in model.workload["metadata"]["annotations"]
            assert not model.job["spec"]["suspend"]
            assert "stop" not in model.job["spec"]


@settings(max_examples=400)
@given(kueue_worlds())
def test_plan_settles_and_changes_nothing_that_kueue_owns(model: JobModel) -> None:
    for _ in range(5):
        planned = model.plan()
        assert planned.need is None
        check(model, planned)
        model.apply(planned)
    last = model.plan()
    assert (last.status, last.note, last.create, last.patches) == (None, None, (), ())
    TrainingJobStatus.model_validate(model.job.get("status", {}))


@settings(max_examples=400)
@given(kueue_worlds())
def test_kueue_cannot_start_what_the_user_suspends(model: JobModel) -> None:
    """A job that is suspended or stopped finally has no active Workload, or no Job."""
    held = model.job["spec"]["suspend"] or model.job["spec"].get("stop") == "Graceful"
    for _ in range(5):
        model.apply(model.plan())
    status = model.job.get("status", {})
    if (
        not held
        or model.child is None
        or model.workload is None
        or status.get("phase") in {None, "Succeeded", "Failed"}
    ):
        return
    finished = any(
        entry["type"] in {"Complete", "Failed"} and entry["status"] == "True"
        for entry in model.child["status"]["conditions"]
    )
    assert finished or status["phase"] in FINAL_PHASES or model.workload["spec"].get("active", True) is False, status
