"""Scenarios of one TrainingJob each, in golden/*.yaml: for each step what is observed and what is planned.

`pytest tests/unit/operator --update-goldens` writes what the code plans now; read the difference before committing it.
Each step also checks that planning again after the plan was applied changes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.operator.trainingjob.state_model import CHILD, DAY, JobModel, at, merged, need_of, new_pod, suspends
from trainyard_operator.admission.decision import Admission
from trainyard_operator.reconcile.plan import FAILED_CREATE, Plan, Refusal

GOLDEN = Path(__file__).parent / "golden"
SCENARIOS = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
_INPUT = (
    *("name", "now", "job", "child", "pods", "check", "checkPods", "exportJobs", "exportPods"),
    *("answers", "refusal", "admission", "kueue", "workload", "restart", "unreachableNodes"),
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"{scenario}.yaml"
    steps = yaml.safe_load(path.read_text())
    model, results = JobModel(), []
    for step in steps:
        assert set(step) <= {*_INPUT, "plan"}, f"{step['name']}: unknown keys {set(step) - {*_INPUT, 'plan'}}"
        if step.get("restart"):
            model = JobModel()
        apply_step(model, step)
        planned = model.plan()
        results.append({**{key: step[key] for key in _INPUT if key in step}, "plan": shown(planned, model)})
        model.apply(planned)
        if planned.create and model.kueue is not None:
            model.apply(model.plan())  # the status follows in the next reconcile
        assert is_settled(model), f"{scenario}: {step['name']}: planning again would write {shown(model.plan(), model)}"
    if request.config.getoption("--update-goldens"):
        path.write_text(dump(results))
    for step, result in zip(steps, results, strict=True):
        assert step.get("plan") == result["plan"] or request.config.getoption("--update-goldens"), (
            f"{scenario}: {step['name']}\n{yaml.safe_dump(result['plan'], sort_keys=False, width=120)}"
        )


def is_settled(model: JobModel) -> bool:
    """Whether planning again changes nothing, except that it cleans up after an end."""
    again = model.plan()
    if again.need is not None:
        return True
    model.apply(again)
    last = model.plan()
    return again.status is None and not (
        last.create or last.delete or last.status or last.patches or suspends(last) is not None
    )


def apply_step(model: JobModel, step: dict[str, Any]) -> None:
    """Apply the changes of a step to the model."""
    if "now" in step:
        model.now = at(step["now"])
    model.job = merged(model.job, with_times(step.get("job", {})))
    if "child" in step:
        known = model.child or {"metadata": {"resourceVersion": "1"}}
        model.child = merged(known, with_times(step["child"]))
    if "check" in step:
        model.check = merged(model.check, with_times(step["check"]))
    for pods, key in ((model.pods, "pods"), (model.check_pods, "checkPods")):
        for name, change in step.get(key, {}).items():
            if change is None:
                del pods[name]
            else:
                pods[name] = merged(
                    pods.get(name, new_pod(name, model.stamp)), with_container_state(with_times(change))
                )
    model.unreachable_nodes = with_times(step.get("unreachableNodes", model.unreachable_nodes))
    apply_exports(model, step)
    apply_kueue(model, step)
    model.answers = {need_of(FAILED_CREATE, CHILD): None}
    model.answers |= {need_of(kind, name): answer for kind, name, answer in step.get("answers", [])}
    model.refusal = Refusal(**step["refusal"]) if step.get("refusal") else None
    model.admission = admission(step["admission"]) if "admission" in step else model.admission


def apply_kueue(model: JobModel, step: dict[str, Any]) -> None:
    model.kueue = step.get("kueue", model.kueue)
    if "workload" in step:
        model.workload = merged(model.workload, with_times(step["workload"]))


def apply_exports(model: JobModel, step: dict[str, Any]) -> None:
    for name, change in step.get("exportJobs", {}).items():
        if change is None:
            model.delete_export_job(name)
        else:
            model.export_jobs[name] = merged(model.export_jobs[name], with_times(change))
    for name, change in step.get("exportPods", {}).items():
        owner = f"{CHILD}-{name.rpartition('-')[0]}"
        uid = model.export_jobs[owner]["metadata"]["uid"]
        made = new_pod(name.rpartition("-")[2], model.stamp, owner=owner, owner_uid=uid)
        model.export_pods[name] = merged(model.export_pods.get(name, made), with_container_state(with_times(change)))


def admission(entry: dict[str, Any]) -> Admission:
    return Admission(**{**entry, "nodes": tuple(entry.get("nodes", ()))})


def with_times(value: Any) -> Any:
    """Replace `at 10:00:07` by that time of the scenario's day."""
    if isinstance(value, dict):
        return {key: with_times(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_times(item) for item in value]
    if isinstance(value, str) and value.startswith("at "):
        return f"{DAY}{value[3:]}Z"
    return value


def with_container_state(pod: Any) -> Any:
    """Expand `state:` of the trainer's container; a termination message may be an object."""
    if not isinstance(pod, dict) or "state" not in pod:
        return pod
    state = pod.pop("state")
    terminated = state.get("terminated", {})
    if isinstance(terminated.get("message"), dict):
        terminated["message"] = json.dumps(terminated["message"])
    return merged(pod, {"status": {"containerStatuses": [{"name": "trainer", "state": state}]}})


def shown(planned: Plan, model: JobModel) -> dict[str, Any]:
    """A plan as the scenarios write it; bodies of children have their own tables."""
    result: dict[str, Any] = {}
    if planned.need:
        result["need"] = list(planned.need)[:2]
    if planned.create:
        result["create"] = [f"{body['kind']} {body['metadata']['name']}" for body in planned.create]
    if suspends(planned) is not None:
        result["suspend"] = suspends(planned)
    optional = [patch for patch in planned.patches if not patch.required]
    if optional:
        result["patch"] = [f"{patch.kind} {patch.name} {json.dumps(patch.body)}" for patch in optional]
    if planned.delete:
        result["delete"] = [f"{kind} {name} grace={grace}" for kind, name, _, grace in planned.delete]
    if planned.status is not None:
        result["status"] = shown_status(planned.status, model.job.get("status") or {})
    if planned.note:
        message = (planned.status or {}).get("message", "")
        result["event"] = " ".join(planned.note).replace(message, "<message>") if message else " ".join(planned.note)
    if planned.requeue_after is not None:
        result["requeueAfter"] = planned.requeue_after
    plain: dict[str, Any] = json.loads(json.dumps(result))
    return plain


def shown_status(patch: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """A status patch with only those conditions and attempts that change."""
    result = dict(patch)
    if "conditions" in patch:
        before = {entry["type"]: entry for entry in known.get("conditions", [])}
        after = {entry["type"]: entry for entry in patch["conditions"]}
        changed = [entry for kind, entry in after.items() if entry != before.get(kind)]
        lines = [shown_condition(entry, patch.get("message", "")) for entry in changed]
        result["conditions"] = [*lines, *(f"-{kind}" for kind in before.keys() - after.keys())]
    if "attempts" in patch:
        result["attempts"] = [entry for entry in patch["attempts"] if entry not in known.get("attempts", [])]
    return result


def shown_condition(entry: dict[str, Any], message: str) -> str:
    """Type, status, reason and time of a condition; its message where it differs from that of the status."""
    text = "" if entry["message"] in ("", message) else f": {entry['message']}"
    return f"{entry['type']}={entry['status']} {entry['reason']} {entry['lastTransitionTime'][11:19]}{text}"


def dump(results: list[dict[str, Any]]) -> str:
    return "\n".join(
        yaml.safe_dump([entry], sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
        for entry in results
    )
