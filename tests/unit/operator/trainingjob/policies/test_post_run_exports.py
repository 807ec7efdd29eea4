"""Exports that are made after the run, each by its own Job."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import child, condition, ended, pod, report, running, time
from tests.unit.operator.trainingjob.state_model import CHILD, SETTINGS, at, merged, new_job, observed_of
from trainyard_operator.reconcile.plan import Deletion, Need, Note, Patch, Plan, Refusal
from trainyard_operator.trainingjob.policies.post_run_exports import plan_exports

JOB = f"{CHILD}-gguf"
JOB_UID = f"uid of {JOB}"
GGUF = {"format": "gguf"}
MADE = {"format": "gguf", "state": "Succeeded", "uri": "pvc://a/b", "bytes": 9, "digest": "d"}
STARTS = f"The Job {JOB} starts its pod, which gets its node, image and volumes."
RETRY = f" To try it again, delete its Job: kubectl delete job {JOB}"
REPORTED = report(exports=[{"format": "gguf", "uri": "pvc://a/b", "bytes": 9, "digest": "d"}])


def job(*conditions: Any, **change: Any) -> dict[str, Any]:
    made = merged(child(*conditions), {"metadata": {"name": JOB, "uid": JOB_UID}})
    found: dict[str, Any] = merged(made, change)
    return found


def of(made: dict[str, Any]) -> dict[str, Any]:
    """A pod of the export's Job."""
    owner = {"kind": "Job", "name": JOB, "uid": JOB_UID, "controller": True}
    metadata = {**made["metadata"], "name": f"{JOB}-a", "ownerReferences": [owner]}
    return {**made, "metadata": metadata}


def planned(
    *,
    exports: list[Any] | None = None,
    known: list[Any] | None = None,
    jobs: list[Any] | None = None,
    pods: list[Any] | None = None,
    now: str = "10:00:10",
    spec: dict[str, Any] | None = None,
    answers: dict[Need, Any] | None = None,
    refusal: Refusal | None = None,
    unreachable: dict[str, str] | None = None,
) -> Plan:
    wanted = {"exports": [GGUF] if exports is None else exports, **(spec or {})}
    base = merged(new_job(), {"spec": wanted, "status": {"phase": "Succeeded", "exports": known or []}})
    seen = observed_of(
        base,
        export_jobs=tuple(jobs or ()),
        export_pods=tuple(of(made) for made in pods or ()),
        answers=answers or {},
        refusal=refusal,
        unreachable_nodes=unreachable or {},
    )
    return plan_exports(seen, SETTINGS, at(now))


def entry(plan: Plan) -> dict[str, Any]:
    assert plan.status is not None
    found: dict[str, Any] = plan.status["exports"][-1]
    return found


@pytest.mark.parametrize(
    ("exports", "known", "makes"),
    [
        ([], [], False),
        ([GGUF], [MADE], False),
        ([GGUF], [], True),
        ([{**GGUF, "destination": "s3://b/c"}], [MADE], True),
        ([{**GGUF, "destination": "s3://b/c"}], [{**MADE, "destination": "s3://b/c"}], False),
    ],
    ids=["none", "made", "missing", "copy missing", "copied"],
)
def test_missing_exports_are_made(exports: list[Any], known: list[Any], makes: bool) -> None:
    plan = planned(exports=exports, known=known)
    assert [body["kind"] for body in plan.create] == (["ConfigMap", "Job"] if makes else [])
    if makes:
        assert (entry(plan)["state"], entry(plan)["message"]) == ("Pending", STARTS)
    else:
        assert plan == Plan()


def test_exports_are_made_one_after_the_other() -> None:
    plan = planned(exports=[GGUF, {"format": "merged"}], jobs=[job()], pods=[running()])
    assert plan.create == ()
    first, second = (plan.status or {})["exports"]
    assert (first["state"], second["state"], second["reason"]) == ("Running", "Pending", "Waiting")


@pytest.mark.parametrize(
    ("refusal", "state"),
    [(Refusal("InvalidSpec", "No.", final=True), "Failed"), (Refusal("QuotaExceeded", "No.", final=False), "Pending")],
)
def test_refused_job(refusal: Refusal, state: str) -> None:
    found = entry(planned(refusal=refusal))
    assert (found["state"], found["reason"], found["message"]) == (state, refusal.reason, "No.")


def test_invalid_spec_fails_the_export() -> None:
    found = entry(planned(spec={"colour": "red"}))
    assert (found["state"], found["reason"]) == ("Failed", "InvalidSpec")


@pytest.mark.parametrize(
    ("jobs", "pods", "state", "reason", "message"),
    [
        ([job()], [], "Pending", "JobCreated", STARTS),
        ([job()], [pod()], "Pending", "JobCreated", STARTS),
        ([job()], [pod(state={"waiting": {"reason": "Odd"}})], "Pending", "Odd", "The container waits: Odd."),
        ([job()], [running()], "Running", None, None),
        ([job(metadata={"deletionTimestamp": time("10:00:05")})], [], "Pending", "JobDeleted", None),
        (
            [job()],
            [ended(code=70, until="10:00:09")],
            "Pending",
            "InternalError",
            "The trainer failed unexpectedly. The next try follows.",
        ),
        ([job()], [ended(code=0, until="10:00:09")], "Running", None, None),
        ([job()], [ended(code=65, until="10:00:09")], "Running", None, None),
        ([job(spec={"backoffLimit": 0})], [ended(code=70, until="10:00:09")], "Running", None, None),
        ([job(spec={"backoffLimit": 1})], [ended(code=70, until="10:00:09")], "Pending", "InternalError", None),
    ],
    ids=[
        "no pod",
        "pending",
        "waits",
        "runs",
        "Job is being deleted",
        "next try",
        "succeeds soon",
        "fails soon",
        "exhausted soon",
        "one try left",
    ],
)
def test_unfinished_job(jobs: list[Any], pods: list[Any], state: str, reason: str | None, message: str | None) -> None:
    found = entry(planned(jobs=jobs, pods=pods))
    assert (found["state"], found.get("reason")) == (state, reason)
    assert message in (None, found.get("message"))


def test_job_without_pod_is_reported_after_a_while() -> None:
    assert planned(jobs=[job()]).requeue_after == 20.0
    assert entry(planned(jobs=[job()], now="10:00:30"))["reason"] == "NoPod"


def test_pod_on_an_unreachable_node_is_reported() -> None:
    found = entry(planned(jobs=[job()], pods=[running()], unreachable={"n1": time("10:00:00")}))
    assert (found["state"], found["reason"]) == ("Running", "NodeSilent")
    assert "which has been unreachable since 2026-01-02T10:00:00Z." in found["message"]


COMPLETE, FAILED = job(condition("Complete")), job(condition("Failed", reason="PodFailurePolicy", message="It failed."))


@pytest.mark.parametrize(
    ("finished", "pods", "state", "reason", "message"),
    [
        (COMPLETE, [ended(message=REPORTED)], "Succeeded", None, None),
        (
            COMPLETE,
            [ended()],
            "Failed",
            "ResultUnknown",
            f"The pod of the Job {JOB} succeeded, but reported no export.{RETRY}",
        ),
        (COMPLETE, [ended(message=report())], "Failed", "ResultUnknown", None),
        (COMPLETE, [], "Pending", "JobCreated", STARTS),
        (FAILED, [], "Failed", "PodFailurePolicy", f"It failed.{RETRY}"),
        (FAILED, [ended(code=73)], "Failed", "StorageFailed", f"The checkpoint volume is full or read-only.{RETRY}"),
    ],
    ids=["reported", "unreported", "other report", "unobserved", "failed without pod", "failed"],
)
def test_finished_job(finished: Any, pods: list[Any], state: str, reason: str | None, message: str | None) -> None:
    plan = planned(jobs=[finished], pods=pods)
    found = entry(plan)
    assert (found["state"], found.get("reason")) == (state, reason)
    assert message in (None, found.get("message"))
    assert plan.delete == ((Deletion("jobs", JOB, JOB_UID),) if state == "Pending" else ())


def test_out_of_memory_has_its_own_remedy() -> None:
    killed = merged(ended(code=137), {})
    killed["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = "OOMKilled"
    found = entry(planned(jobs=[FAILED], pods=[killed]))
    assert found["reason"] == "OOMKilled"
    assert (
        "Make it where there is more memory: copy the run directory and use trainyard-trainer export."
        in found["message"]
    )


def test_pod_of_a_finished_job_that_seems_to_run_is_looked_up() -> None:
    need = Need("pods", f"{JOB}-a")
    assert planned(jobs=[COMPLETE], pods=[running()]).need == need
    done = of(ended(message=REPORTED))
    assert entry(planned(jobs=[COMPLETE], pods=[running()], answers={need: done}))["state"] == "Succeeded"
    assert entry(planned(jobs=[COMPLETE], pods=[running()], answers={need: None}))["state"] == "Pending"


@pytest.mark.parametrize(
    ("suspend", "now", "late"),
    [(False, "10:29:59", False), (False, "10:30:00", True), (True, "11:00:00", False)],
    ids=["in time", "late", "suspended by another client"],
)
def test_export_fails_after_its_start_deadline(suspend: bool, now: str, late: bool) -> None:
    waiting = job(spec={"suspend": suspend})
    plan = planned(jobs=[waiting], pods=[pod()], now=now)
    assert (entry(plan)["state"] == "Failed") is late
    if not late:
        return
    assert plan.requeue_after == 0.0
    assert entry(plan)["message"] == (
        f"The container did not run within 1800 s (spec.startDeadlineSeconds). {STARTS}{RETRY}"
    )
    again = planned(jobs=[waiting], pods=[pod()], now=now, known=[entry(plan)])
    seen = {"uid": JOB_UID, "resourceVersion": "7"}
    assert again.patches == (Patch("jobs", JOB, {"metadata": seen, "spec": {"suspend": True}}),)
    held = planned(jobs=[job(spec={"suspend": True})], pods=[pod()], now=now, known=[entry(plan)])
    assert held == Plan()


@pytest.mark.parametrize(
    ("known", "jobs", "pods", "note"),
    [
        ([], [job()], [running()], Note("Normal", "Exporting", f"Export gguf is made by the Job {JOB}.")),
        ([], [COMPLETE], [ended(message=REPORTED)], Note("Normal", "Exported", "Export gguf: 9 bytes at pvc://a/b.")),
        ([], [FAILED], [], Note("Warning", "ExportFailed", f"Export gguf: PodFailurePolicy: It failed.{RETRY}")),
        ([], [job()], [], None),
        ([{"format": "gguf", "state": "Running", "jobName": JOB}], [job()], [running()], None),
    ],
    ids=["starts", "made", "failed", "pending", "unchanged"],
)
def test_events(known: list[Any], jobs: list[Any], pods: list[Any], note: Note | None) -> None:
    assert planned(known=known, jobs=jobs, pods=pods).note == note


def test_generation_is_observed_with_the_exports() -> None:
    assert (planned().status or {})["observedGeneration"] == 1
