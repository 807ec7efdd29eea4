"""What holds for every plan under Kueue, whatever the Job and its Workload say: what is Kueue's is left to Kueue."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.trainingjob.state_model import World, suspends
from tests.unit.operator.trainingjob.test_properties import TIMES, worlds
from trainyard_crds.trainingjob_status import FINAL_PHASES, TrainingJobStatus
from trainyard_operator.queue.kueue_workload import HELD_ANNOTATION
from trainyard_operator.reconcile.plan import Plan
from trainyard_operator.trainingjob.kueue_adapter import PRIORITY_LABEL, QUEUE_LABEL

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
def kueue_worlds(draw: st.DrawFn) -> World:
    world = draw(worlds())
    world.kueue = draw(st.sampled_from([{}, {"default": "gpus"}, {"default": "gpus", "problem": "Install Kueue."}]))
    name = draw(st.sampled_from([{}, {"name": "gpus"}, {"name": "other", "priority": 9}]))
    world.job["spec"]["queue"] = name
    if world.child is not None and draw(st.booleans()):
        calm(world)
    if world.child is not None:
        world.child["metadata"]["labels"] = {QUEUE_LABEL: "gpus", PRIORITY_LABEL: "trainyard-p5"}
        world.workload = draw(workloads())
    return world


def calm(world: World) -> None:
    """Most Jobs under Kueue wait, suspended and without a pod."""
    assert world.child is not None
    world.pods = {}
    world.child["spec"]["suspend"] = True
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": world.stamp}
    world.child["status"] = {"conditions": [suspended]}


def check(world: World, planned: Plan) -> None:
    """Nothing but two labels and spec.active is written, and only what is ours is activated."""
    assert suspends(planned) is None
    for patch in planned.patches:
        if patch.kind == "jobs":
            assert patch.body["metadata"].keys() == {"labels"}
            assert patch.body["metadata"]["labels"].keys() <= {QUEUE_LABEL, PRIORITY_LABEL}
        elif patch.body["spec"] == {"active": True}:
            assert world.workload is not None
            assert HELD_ANNOTATION in world.workload["metadata"]["annotations"]
            assert not world.job["spec"]["suspend"]
            assert "stop" not in world.job["spec"]


@settings(max_examples=400)
@given(kueue_worlds())
def test_a_plan_settles_and_leaves_to_kueue_what_is_its(world: World) -> None:
    for _ in range(5):
        planned = world.plan()
        assert planned.need is None
        check(world, planned)
        world.apply(planned)
    last = world.plan()
    assert (last.status, last.note, last.create, last.patches) == (None, None, (), ())
    TrainingJobStatus.model_validate(world.job.get("status", {}))


@settings(max_examples=400)
@given(kueue_worlds())
def test_what_the_user_holds_back_kueue_may_not_start(world: World) -> None:
    """However Kueue sees it: a job that is suspended or stopped has no active Workload, or no Job, in the end."""
    held = world.job["spec"]["suspend"] or world.job["spec"].get("stop") == "Graceful"
    for _ in range(5):
        world.apply(world.plan())
    status = world.job.get("status", {})
    if (
        not held
        or world.child is None
        or world.workload is None
        or status.get("phase") in {None, "Succeeded", "Failed"}
    ):
        return
    finished = any(
        entry["type"] in {"Complete", "Failed"} and entry["status"] == "True"
        for entry in world.child["status"]["conditions"]
    )
    assert finished or status["phase"] in FINAL_PHASES or world.workload["spec"].get("active", True) is False, status
