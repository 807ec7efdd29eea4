"""Stories of one TrainingJob each, told step by step in golden/*.yaml: what is observed, and what is planned.

`pytest tests/unit/operator --update-goldens` writes what the code plans now; read the difference before committing it.
Every step also proves that planning again after the plan was applied changes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.operator.trainingjob.state_model import CHILD, DAY, World, at, merged, need_of, new_pod, suspends
from trainyard_operator.admission.decision import Admission
from trainyard_operator.reconcile.plan import Plan, Refusal

GOLDEN = Path(__file__).parent / "golden"
STORIES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
_INPUT = (
    *("name", "now", "job", "child", "pods", "check", "checkPods", "exportJobs", "exportPods"),
    *("answers", "refusal", "admission", "kueue", "workload", "restart", "silentNodes"),
)


@pytest.mark.parametrize("story", STORIES)
def test_story(story: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"{story}.yaml"
    steps = yaml.safe_load(path.read_text())
    world, results = World(), []
    for step in steps:
        assert set(step) <= {*_INPUT, "plan"}, f"{step['name']}: unknown keys {set(step) - {*_INPUT, 'plan'}}"
        if step.get("restart"):
            world = World()
        tell(world, step)
        planned = world.plan()
        results.append({**{key: step[key] for key in _INPUT if key in step}, "plan": shown(planned, world)})
        world.apply(planned)
        if planned.create and world.kueue is not None:
            world.apply(world.plan())  # the status follows in a round of its own
        assert settled(world), f"{story}: {step['name']}: planning again would write {shown(world.plan(), world)}"
    if request.config.getoption("--update-goldens"):
        path.write_text(dump(results))
    for step, result in zip(steps, results, strict=True):
        assert step.get("plan") == result["plan"] or request.config.getoption("--update-goldens"), (
            f"{story}: {step['name']}\n{yaml.safe_dump(result['plan'], sort_keys=False, width=120)}"
        )


def settled(world: World) -> bool:
    """Whether the plan for what was just planned changes nothing more, but for the cleaning up after an end."""
    again = world.plan()
    if again.need is not None:
        return True
    world.apply(again)
    last = world.plan()
    return again.status is None and not (
        last.create or last.delete or last.status or last.patches or suspends(last) is not None
    )


def tell(world: World, step: dict[str, Any]) -> None:
    """Bring a step's news into the world."""
    if "now" in step:
        world.now = at(step["now"])
    world.job = merged(world.job, stamped(step.get("job", {})))
    if "child" in step:
        known = world.child or {"metadata": {"resourceVersion": "1"}}
        world.child = merged(known, stamped(step["child"]))
    if "check" in step:
        world.check = merged(world.check, stamped(step["check"]))
    for pods, key in ((world.pods, "pods"), (world.check_pods, "checkPods")):
        for name, change in step.get(key, {}).items():
            if change is None:
                del pods[name]
            else:
                pods[name] = merged(pods.get(name, new_pod(name, world.stamp)), worded(stamped(change)))
    world.unreachable_nodes = stamped(step.get("silentNodes", world.unreachable_nodes))
    tell_of_exports(world, step)
    tell_of_kueue(world, step)
    world.answers = {need_of(kind, name): answer for kind, name, answer in step.get("answers", [])}
    world.refusal = Refusal(**step["refusal"]) if step.get("refusal") else None
    world.admission = admission(step["admission"]) if "admission" in step else world.admission


def tell_of_kueue(world: World, step: dict[str, Any]) -> None:
    world.kueue = step.get("kueue", world.kueue)
    if "workload" in step:
        world.workload = merged(world.workload, stamped(step["workload"]))


def tell_of_exports(world: World, step: dict[str, Any]) -> None:
    for name, change in step.get("exportJobs", {}).items():
        if change is None:
            world.delete_export_job(name)
        else:
            world.export_jobs[name] = merged(world.export_jobs[name], stamped(change))
    for name, change in step.get("exportPods", {}).items():
        owner = f"{CHILD}-{name.rpartition('-')[0]}"
        uid = world.export_jobs[owner]["metadata"]["uid"]
        made = new_pod(name.rpartition("-")[2], world.stamp, owner=owner, owner_uid=uid)
        world.export_pods[name] = merged(world.export_pods.get(name, made), worded(stamped(change)))


def admission(entry: dict[str, Any]) -> Admission:
    return Admission(**{**entry, "nodes": tuple(entry.get("nodes", ()))})


def stamped(value: Any) -> Any:
    """`at 10:00:07` in a story is that time of its day."""
    if isinstance(value, dict):
        return {key: stamped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stamped(item) for item in value]
    if isinstance(value, str) and value.startswith("at "):
        return f"{DAY}{value[3:]}Z"
    return value


def worded(pod: Any) -> Any:
    """`state:` is the trainer's container; a termination message may be written as an object."""
    if not isinstance(pod, dict) or "state" not in pod:
        return pod
    state = pod.pop("state")
    terminated = state.get("terminated", {})
    if isinstance(terminated.get("message"), dict):
        terminated["message"] = json.dumps(terminated["message"])
    return merged(pod, {"status": {"containerStatuses": [{"name": "trainer", "state": state}]}})


def shown(planned: Plan, world: World) -> dict[str, Any]:
    """A plan as the stories write it; bodies of children have tables of their own."""
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
        result["status"] = shown_status(planned.status, world.job.get("status") or {})
    if planned.note:
        message = (planned.status or {}).get("message", "")
        result["event"] = " ".join(planned.note).replace(message, "<message>") if message else " ".join(planned.note)
    if planned.requeue_after is not None:
        result["requeueAfter"] = planned.requeue_after
    plain: dict[str, Any] = json.loads(json.dumps(result))
    return plain


def shown_status(patch: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """A status patch: of the conditions and attempts, the entries that change, each in one line."""
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
    """Type, status, reason and time; the message where it is not that of the status."""
    text = "" if entry["message"] in ("", message) else f": {entry['message']}"
    return f"{entry['type']}={entry['status']} {entry['reason']} {entry['lastTransitionTime'][11:19]}{text}"


def dump(results: list[dict[str, Any]]) -> str:
    return "\n".join(
        yaml.safe_dump([entry], sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
        for entry in results
    )
