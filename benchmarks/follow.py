"""Record when each job of a namespace was created, got its child Job, ran and ended, from an independent client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.control_plane import Api, Object
from trainyard_crds.constants import JOB_UID_LABEL

JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"
TRAINING_JOBS = "/apis/trainyard.dev/v1alpha1/namespaces/{}/trainingjobs"
STEPS = ("answered", "child", "running", "complete", "succeeded")

OnRunning = Callable[[Object], None]


@dataclass
class JobTimes:
    """Monotonic time of the first event of each step, by TrainingJob uid.

    Attributes:
        at: Times by step, then by uid.
        create_calls: Duration of each create call in seconds.
        on_running: Called with each pod that starts to run.
    """

    at: dict[str, dict[str, float]] = field(default_factory=lambda: {step: {} for step in STEPS})
    create_calls: list[float] = field(default_factory=list)
    on_running: OnRunning = lambda _pod: None

    async def create(self, api: Api, body: Object) -> str:
        """Create a TrainingJob and return its uid."""
        began = time.monotonic()
        created = await api.create(TRAINING_JOBS.format(body["metadata"]["namespace"]), body)
        answered = time.monotonic()
        uid = str(created["metadata"]["uid"])
        self.at["answered"][uid] = answered
        self.create_calls.append(answered - began)
        return uid

    def between(self, first: str, then: str) -> list[float]:
        """Return the seconds between two steps, of each job that reached both."""
        begun, ended = self.at[first], self.at[then]
        return [ended[uid] - at for uid, at in begun.items() if uid in ended]

    def all_at(self, step: str, uids: Iterable[str]) -> bool:
        """Return whether all of these jobs reached a step."""
        seen = self.at[step]
        return all(uid in seen for uid in uids)

    def record_job(self, obj: Object, at: float) -> None:
        """Record a watch event of a Job."""
        uid = obj["metadata"].get("labels", {}).get(JOB_UID_LABEL, "")
        self.at["child"].setdefault(uid, at)
        conditions = obj.get("status", {}).get("conditions", [])
        if any(each["type"] == "Complete" and each["status"] == "True" for each in conditions):
            self.at["complete"].setdefault(uid, at)

    def record_pod(self, obj: Object, at: float) -> None:
        """Record a watch event of a pod."""
        uid = obj["metadata"].get("labels", {}).get(JOB_UID_LABEL, "")
        if obj.get("status", {}).get("phase") == "Running" and uid not in self.at["running"]:
            self.at["running"][uid] = at
            self.on_running(obj)

    def record_training_job(self, obj: Object, at: float) -> None:
        """Record a watch event of a TrainingJob."""
        if obj.get("status", {}).get("phase") == "Succeeded":
            self.at["succeeded"].setdefault(str(obj["metadata"]["uid"]), at)


@asynccontextmanager
async def record_times(api: Api, namespace: str) -> AsyncIterator[JobTimes]:
    """Watch a namespace's TrainingJobs, Jobs and pods for as long as the context lasts."""
    times = JobTimes()
    watches = [
        asyncio.create_task(api.watch(path.format(namespace), record))
        for path, record in (
            (JOBS, times.record_job),
            (PODS, times.record_pod),
            (TRAINING_JOBS, times.record_training_job),
        )
    ]
    await asyncio.sleep(0.3)
    try:
        yield times
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
