"""Apply the demo's TrainingJob and print its result."""

from __future__ import annotations

from pathlib import Path

import yaml

from demo.compare import Comparison
from demo.kubectl import Kubectl, KubectlError, Object
from demo.manifest import load

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "python-docs-qlora.yaml"
LOSS_BAR = 0.7
"""Held-out loss after / before must be at most this: it falls by at least 30 %."""


def apply_example(kubectl: Kubectl, model: str | None) -> str:
    """Apply the example, optionally with another base model, and return the job's name.

    An existing job continues; one that failed, was stopped or has another spec is replaced.
    """
    job = load(EXAMPLE)
    if model:
        _use_hub_model(job, model)
    name = str(job["metadata"]["name"])
    found = kubectl.get("trainingjob", name)
    if found and (found["status"].get("phase") in ("Failed", "Stopped") or _differs(found, job)):
        print(f"      replacing the {found['status'].get('phase', '')} TrainingJob {name} of an earlier demo")
        kubectl.run("delete", "trainingjob", name, "--wait=true")
    kubectl.apply(job)
    return name


def _use_hub_model(job: Object, model: str) -> None:
    """Replace the example's settings for a model of two million parameters by ones for a real model."""
    spec = job["spec"]
    job["metadata"]["name"] += "-hub"
    spec["model"] = {"source": model}
    spec["optimization"] |= {"learningRate": 2e-4, "maxSteps": 60}
    spec["adapter"] = {"rank": 16, "alpha": 32}
    spec["resources"]["memory"] = "14Gi"
    spec["storage"]["size"] = "20Gi"


def _differs(found: Object, job: Object) -> bool:
    wanted = job["spec"]
    return any(
        found["spec"].get(block, {}).get(key) != value
        for block, values in wanted.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if not isinstance(value, dict)
    )


def show_result(kubectl: Kubectl, job: Object) -> None:
    """Print the finished job as a user sees it.

    Raises:
        KubectlError: the job failed; the text has the reason.
    """
    status = job["status"]
    if status["phase"] != "Succeeded":
        raise KubectlError(f"the job ended {status['phase']}: {status.get('message')}\n{status.get('logTail', '')}")
    print("\n" + kubectl.run("get", "trainingjobs").rstrip())
    print("\n      kubectl get tj -o yaml, shortened:")
    metrics = {key: round(value, 4) for key, value in sorted(status["metrics"].items())}
    picked = {
        "message": status["message"],
        "metrics": metrics,
        "checkpoints": [f"{c['name']}{' (best)' if c.get('best') else ''}" for c in status["checkpoints"]],
        "exports": [export["uri"] for export in status["exports"]],
        "attempts": [f"{a['pod']}: exit code {a['exitCode']}" for a in status["attempts"]],
    }
    print("\n".join("        " + line for line in yaml.safe_dump(picked, sort_keys=False, width=110).splitlines()))


def show_comparison(found: Comparison) -> bool:
    """Print the comparison, and return whether the model learned the material."""
    print(found.report)
    fell, used = found.after <= LOSS_BAR * found.before, found.after < found.after_shuffled
    drop = 100 * (1 - found.after / found.before)
    print(f"      [{'ok' if fell else 'NOT SHOWN'}] the held-out loss fell by {drop:.0f} % (at least 30 % expected)")
    print(
        f"      [{'ok' if used else 'NOT SHOWN'}] with the right question it is {found.after:.3f}, "
        f"with a wrong one {found.after_shuffled:.3f}: the model uses the question"
    )
    return fell and used
