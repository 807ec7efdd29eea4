"""Watch a TrainingJob in the terminal until it finishes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from demo.kubectl import Kubectl, Object

FINAL = ("Succeeded", "Failed", "Stopped")
_BAR = 28


def follow(kubectl: Kubectl, name: str, seconds: float, report: Callable[[str], None]) -> Object:
    """Print phase, progress, step, loss and ETA as they change; return the final object.

    Raises:
        TimeoutError: the job did not finish in time.
    """
    shown = ""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = kubectl.get("trainingjob", name)
        if job is None:
            raise LookupError(f"TrainingJob {name} is gone")
        line = render(job)
        if line != shown:
            _print(line, last=phase(job) in FINAL)
            shown = line
        if phase(job) in FINAL:
            return job
        time.sleep(1)
    report("the job is still there; watch it with: kubectl get tj -w")
    raise TimeoutError(f"TrainingJob {name} did not finish within {seconds:.0f} s")


def phase(job: Object) -> str:
    """Return the phase, or Pending while there is no status."""
    return str(job.get("status", {}).get("phase", "Pending"))


def render(job: Object) -> str:
    """Format one line about the job."""
    status = job.get("status", {})
    summary, progress = status.get("summary", {}), status.get("progress", {})
    percent = float(progress.get("percent") or 0)
    full = int(percent / 100 * _BAR)
    bar = "#" * full + "." * (_BAR - full)
    parts = [f"{phase(job):<10} [{bar}] {summary.get('progress', ''):>5}"]
    for label, key in (("step", "step"), ("loss", "loss"), ("eta", "eta")):
        if summary.get(key):
            parts.append(f"{label} {summary[key]}")
    if "evalLoss" in status.get("metrics", {}):
        parts.append(f"held-out {status['metrics']['evalLoss']:.3f}")
    if phase(job) not in ("Running", "Succeeded") and status.get("message"):
        parts.append(status["message"])
    elif progress.get("stage") and progress["stage"] != "Training":
        parts.append(progress["stage"])
    return "  ".join(parts)


def _print(line: str, *, last: bool) -> None:
    if sys.stdout.isatty():
        print(f"\r\x1b[2K{line[:160]}", end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)
