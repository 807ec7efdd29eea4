"""Hypothesis strategies for TrainingJobs and their children in any combination of states."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.unit.operator.trainingjob.state_model import (
    CHILD,
    CHILD_UID,
    DAY,
    NAME,
    NAMESPACE,
    UID,
    JobModel,
    at,
    merged,
    need_of,
    new_pod,
)
from trainyard_operator.trainingjob.children.render import export_name

_TERMINATION = '{"outcome":"%s","exitCode":%d,"reason":"R","message":"m","step":%d,"totalSteps":9}'
TIMES = st.integers(0, 59).map(lambda second: f"{DAY}10:00:{second:02d}Z")


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["none", "waiting", "running", "terminated"]))
    if kind == "none":
        return {}
    if kind == "waiting":
        return {"waiting": {"reason": draw(st.sampled_from(["ErrImagePull", "ContainerCreating", "Odd"]))}}
    if kind == "running":
        return {"running": {"startedAt": draw(TIMES)}}
    code = draw(st.sampled_from([0, 1, 64, 75, 76, 79, 80, 137, 139, 143]))
    outcome = draw(st.sampled_from(["Finished", "Interrupted", "Failed"]))
    message = draw(st.sampled_from(["", "Traceback", _TERMINATION % (outcome, code, draw(st.integers(0, 9)))]))
    return {"terminated": {"exitCode": code, "message": message, "startedAt": draw(TIMES), "finishedAt": draw(TIMES)}}


@st.composite
def pods(draw: st.DrawFn, name: str) -> dict[str, Any]:
    pod = new_pod(name, draw(TIMES))
    pod["status"] = {
        "phase": draw(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])),
        "containerStatuses": [{"name": "trainer", "state": draw(states())}],
    }
    if draw(st.booleans()):
        pod["metadata"] |= {"deletionTimestamp": draw(TIMES), "deletionGracePeriodSeconds": draw(st.integers(0, 120))}
        pod["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    if draw(st.booleans()):
        pod["status"]["conditions"] = [
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        ]
    if draw(st.booleans()):
        pod["gone"] = True
    return pod


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any] | None:
    if draw(st.booleans()):
        return None
    kinds = draw(st.lists(st.sampled_from(["Complete", "Failed", "Suspended"]), unique=True))
    conditions = [
        {"type": kind, "status": draw(st.sampled_from(["True", "False"])), "lastTransitionTime": draw(TIMES)}
        for kind in kinds
    ]
    counts = {"active": draw(st.sampled_from([None, 1])), "terminating": draw(st.sampled_from([None, 1]))}
    return {
        "metadata": {"name": CHILD, "uid": CHILD_UID, "resourceVersion": "7", "creationTimestamp": draw(TIMES)},
        "spec": {"suspend": draw(st.booleans()), "backoffLimit": draw(st.integers(0, 3)), "image": "i"},
        "status": {key: value for key, value in counts.items() if value} | {"conditions": conditions},
    }


@st.composite
def models(draw: st.DrawFn) -> JobModel:
    model = JobModel()
    spec: dict[str, Any] = {"suspend": draw(st.booleans()), "startDeadlineSeconds": draw(st.sampled_from([1, 1800]))}
    spec |= draw(st.sampled_from([{}, {}, {"stop": "Graceful"}, {"stop": "Force"}]))
    spec |= draw(st.sampled_from([{}, {"activeDeadlineSeconds": 20}]))
    model.job = merged(model.job, {"spec": spec})
    if draw(st.booleans()):
        model.job = merged(model.job, {"status": {"jobName": CHILD}})
    model.child = draw(jobs())
    gang = draw(st.booleans())
    if gang:
        model.job = merged(model.job, {"spec": {"resources": {"nodes": 2}}})
    names = ("0-a", "1-a", "1-b", "0-b") if gang else ("a", "b")
    model.pods = {name: draw(pods(name)) for name in names[: draw(st.integers(0, len(names)))]}
    model.now = at("10:01:00")
    for name in names:
        model.answers[need_of("pods", f"{CHILD}-{name}")] = None
        model.answers[need_of("log", f"{CHILD}-{name}")] = "the end"
    model.answers[need_of("jobs", CHILD)] = None
    model.answers[need_of("failed-create", CHILD)] = draw(st.sampled_from([None, "Error creating: x"]))
    model.answers[need_of("terminating", NAMESPACE)] = draw(st.booleans())
    return model


@st.composite
def exporting_models(draw: st.DrawFn) -> JobModel:
    model = JobModel()
    formats = draw(st.lists(st.sampled_from(["adapter", "merged", "gguf"]), unique=True, min_size=1))
    status: dict[str, Any] = {"phase": "Succeeded", "message": "done", "progress": {"step": 9}}
    made = [{"format": name, "uri": "pvc://a/b", "bytes": 1, "digest": "d"} for name in formats if draw(st.booleans())]
    limit = draw(st.sampled_from([1, 1800]))
    exports = [{"format": name} for name in formats]
    model.job = merged(model.job, {"spec": {"exports": exports, "startDeadlineSeconds": limit}})
    model.job["status"] = status | {"exports": made}
    for format_ in formats:
        name, job = export_name(NAME, UID, format_), draw(jobs())
        if job is None:
            continue
        deleted = {"deletionTimestamp": f"{DAY}10:00:00Z"} if draw(st.booleans()) else {}
        model.export_jobs[name] = merged(job, {"metadata": {"name": name, "uid": f"uid of {name}"} | deleted})
        for letter in draw(st.sampled_from([[], ["a"], ["a", "b"]])):
            pod = merged(draw(pods(letter)), {"metadata": {"name": f"{name}-{letter}", "uid": f"{name}-{letter}"}})
            owner = {"kind": "Job", "name": name, "uid": f"uid of {name}", "controller": True}
            pod["metadata"]["ownerReferences"] = [owner]
            model.export_pods[f"{name}-{letter}"] = pod
            model.answers[need_of("pods", f"{name}-{letter}")] = draw(st.sampled_from([None, pod]))
    model.now = at("10:01:00")
    return model
