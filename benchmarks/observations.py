"""Observations of an independent client on many queued jobs: order, ends, use of the GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.queueing.load import PRIORITIES

from benchmarks.control_plane import Object
from trainyard_crds.constants import ADMITTED_ANNOTATION, JOB_UID_LABEL


@dataclass
class Seen:
    """Observations of all jobs.

    Attributes:
        jobs: Newest version of each TrainingJob, by UID.
        answered, child, ended: Monotonic seconds, by UID of the TrainingJob.
        admitted: The annotation of each Job, by UID of the TrainingJob.
        used: GPUs of running pods after each change, with its moment.
    """

    jobs: dict[str, Object] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)
    child: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    admitted: dict[str, str] = field(default_factory=dict)
    used: list[tuple[float, int]] = field(default_factory=list)
    _running: dict[str, int] = field(default_factory=dict)

    def take_training_job(self, obj: Object, at: float) -> None:
        uid = str(obj["metadata"]["uid"])
        self.jobs[uid] = obj
        if obj.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
            self.ended.setdefault(uid, at)

    def take_job(self, obj: Object, at: float) -> None:
        uid = obj["metadata"]["labels"].get(JOB_UID_LABEL, "")
        self.child.setdefault(uid, at)
        self.admitted[uid] = obj["metadata"]["annotations"].get(ADMITTED_ANNOTATION, "")

    def take_pod(self, obj: Object, at: float) -> None:
        uid = obj["metadata"]["uid"]
        if obj["status"].get("phase") == "Running" and "deletionTimestamp" not in obj["metadata"]:
            limits = (one["resources"].get("limits", {}) for one in obj["spec"]["containers"])
            self._running[uid] = sum(int(each.get("nvidia.com/gpu", 0)) for each in limits)
        else:
            self._running.pop(uid, None)
        self.used.append((at, sum(self._running.values())))

    def use(self, gpus_in_all: int) -> float:
        """Return the share of GPUs in use, from the first start to the last start."""
        last = max(at for at, _ in self.used if at <= max(self.child.values()))
        first = next(at for at, gpus in self.used if gpus)
        area = sum((then - at) * gpus for (at, gpus), (then, _) in pairwise(self.used) if first <= at <= last)
        return area / (last - first) / gpus_in_all

    def overtakes(self) -> int:
        """Count neighbours of one priority that were admitted in the wrong order."""
        found = 0
        for priority in PRIORITIES:
            jobs = [job for job in self.jobs.values() if job["spec"]["queue"]["priority"] == priority]
            line = sorted(jobs, key=lambda job: str(job["status"]["queue"]["enqueuedAt"]))
            moments = [self.admitted[job["metadata"]["uid"]] for job in line]
            found += sum(before >= after for before, after in pairwise(moments))
        return found

    def waits(self, priority: int) -> list[float]:
        """Return the seconds from the create call's response to the child Job, for the jobs of a priority."""
        uids = [uid for uid, job in self.jobs.items() if job["spec"]["queue"]["priority"] == priority]
        return [self.child[uid] - self.answered[uid] for uid in uids if uid in self.child]


def quantiles(values: Sequence[float]) -> str:
    """Return p50, p95 and p99."""
    ordered = sorted(values)
    return " / ".join(f"{ordered[min(len(ordered) - 1, int(len(ordered) * q))]:.0f}" for q in (0.5, 0.95, 0.99))
