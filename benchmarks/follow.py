"""When each job of a namespace was created, got its Job, ran and ended, as an independent client sees it."""

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
class Followed:
    """Monotonic seconds of what was seen first, by TrainingJob uid.

    Attributes:
        at: One table for each name in `STEPS`.
        create_calls: Seconds that each create call took.
        on_running: Told of each pod that runs.
    """

    at: dict[str, dict[str, float]] = field(default_factory=lambda: {step: {} for step in STEPS})
    create_calls: list[float] = field(default_factory=list)
    on_running: OnRunning = lambda _pod: None

    async def create(self, api: Api, body: Object) -> str:
        """Create a TrainingJob; its uid."""
        began = time.monotonic()
        created = await api.create(TRAINING_JOBS.format(body["metadata"]["namespace"]), body)
        answered = time.monotonic()
        uid = str(created["metadata"]["uid"])
        self.at["answered"][uid] = answered
        self.create_calls.append(answered - began)
        return uid

    def between(self, first: str, then: str) -> list[float]:
        """Seconds from one step to another, of every job that was seen in both."""
        begun, ended = self.at[first], self.at[then]
        return [ended[uid] - at for uid, at in begun.items() if uid in ended]

    def all_at(self, step: str, uids: Iterable[str]) -> bool:
        """Whether every one of these jobs was seen at a step."""
        seen = self.at[step]
        return all(uid in seen for uid in uids)

    def take_job(self, obj: Object, at: float) -> None:
        """A watch event of a Job."""
        uid = obj["metadata"].get("labels", {}).get(JOB_UID_LABEL, "")
        self.at["child"].setdefault(uid, at)
        conditions = obj.get("status", {}).get("conditions", [])
        if any(each["type"] == "Complete" and each["status"] == "True" for each in conditions):
            self.at["complete"].setdefault(uid, at)

    def take_pod(self, obj: Object, at: float) -> None:
        """A watch event of a pod."""
        uid = obj["metadata"].get("labels", {}).get(JOB_UID_LABEL, "")
        if obj.get("status", {}).get("phase") == "Running" and uid not in self.at["running"]:
            self.at["running"][uid] = at
            self.on_running(obj)

    def take_training_job(self, obj: Object, at: float) -> None:
        """A watch event of a TrainingJob."""
        if obj.get("status", {}).get("phase") == "Succeeded":
            self.at["succeeded"].setdefault(str(obj["metadata"]["uid"]), at)


@asynccontextmanager
async def following(api: Api, namespace: str) -> AsyncIterator[Followed]:
    """Watch a namespace's TrainingJobs, Jobs and pods for as long as the context lasts."""
    followed = Followed()
    watches = [
        asyncio.create_task(api.watch(path.format(namespace), take))
        for path, take in (
            (JOBS, followed.take_job),
            (PODS, followed.take_pod),
            (TRAINING_JOBS, followed.take_training_job),
        )
    ]
    await asyncio.sleep(0.3)
    try:
        yield followed
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
