"""Many jobs at once, and what an independent client sees of them."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes
from trainyard_crds.contract import ADMITTED_ANNOTATION, JOB_UID_LABEL

Object = dict[str, Any]
SIZES = (1,) * 7 + (2,) * 2 + (8,)
"""GPUs of a job: 70, 20 and 10 %."""
PRIORITIES = (1, 5, 9)


def fill(kubernetes: Kubernetes, namespace: str, claim: str, *, count: int, seed: int, prefix: str = "job") -> None:
    """Create TrainingJobs of mixed size and priority, eight requests at a time."""
    dice = random.Random(seed)

    def create(number: int, gpus: int, priority: int) -> None:
        name = f"{prefix}-{number:04d}"
        body = kwok_support.training_job(namespace, name, claim=claim, gpus=gpus, queue={"priority": priority})
        kubernetes.client.apply(f"/apis/trainyard.dev/v1alpha1/namespaces/{namespace}/trainingjobs/{name}", body)

    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(create, n, dice.choice(SIZES), dice.choice(PRIORITIES)) for n in range(count)]
    for one in made:
        one.result()


class Followed:
    """The newest version of each TrainingJob, Job and pod, and the most GPUs that pods held at any instant."""

    def __init__(self) -> None:
        self.jobs: dict[str, Object] = {}
        self.children: dict[str, Object] = {}
        self.most_gpus = 0
        self._pods: dict[str, Counter[str]] = {}
        self._held: dict[str, int] = {}
        self._ended: set[str] = set()

    def take(self, event: Object) -> None:
        """Take in one line of a watch."""
        obj, gone = event["object"], event["type"] == "DELETED"
        uid, kind = obj["metadata"]["uid"], obj["kind"]
        if kind == "TrainingJob" and not gone:
            self.jobs[uid] = obj
            if obj.get("status", {}).get("phase") in {"Succeeded", "Failed", "Stopped"}:
                self._ended.add(uid)
        elif kind == "Job" and not gone:
            self.children[uid] = obj
        elif kind == "Pod":
            self._take_pod(obj, gone)

    def _take_pod(self, pod: Object, gone: bool) -> None:
        uid, owner = pod["metadata"]["uid"], pod["metadata"]["labels"][JOB_UID_LABEL]
        self._pods.setdefault(owner, Counter())[uid] += 1
        over = gone or pod["status"].get("phase") in {"Succeeded", "Failed"}
        limits = (container["resources"].get("limits", {}) for container in pod["spec"]["containers"])
        self._held[uid] = 0 if over else sum(int(each.get("nvidia.com/gpu", 0)) for each in limits)
        self.most_gpus = max(self.most_gpus, sum(self._held.values()))

    def ended(self) -> int:
        """TrainingJobs that came to an end."""
        return len(self._ended)

    def phases(self) -> dict[str, str]:
        """Phase of each TrainingJob."""
        return {job["metadata"]["name"]: job.get("status", {}).get("phase", "") for job in self.jobs.values()}

    def pods_per_job(self) -> dict[str, int]:
        """Pods that each TrainingJob had."""
        return {uid: len(self._pods.get(uid, ())) for uid in self.jobs}

    def overtakes(self) -> list[tuple[str, str]]:
        """Pairs of jobs of one priority of which the later one was let in first."""
        admitted = {
            child["metadata"]["labels"][JOB_UID_LABEL]: child["metadata"]["annotations"][ADMITTED_ANNOTATION]
            for child in self.children.values()
        }
        found = []
        for priority in PRIORITIES:
            jobs = [job for job in self.jobs.values() if job["spec"]["queue"]["priority"] == priority]
            line = sorted(jobs, key=lambda job: str(job["status"]["queue"]["enqueuedAt"]))
            for before, after in pairwise(line):
                if admitted[before["metadata"]["uid"]] >= admitted[after["metadata"]["uid"]]:
                    found.append((before["metadata"]["name"], after["metadata"]["name"]))
        return found


@contextmanager
def follow(kubernetes: Kubernetes, namespace: str) -> Iterator[Followed]:
    """Watch a namespace's TrainingJobs, Jobs and pods in the background."""
    followed, lock = Followed(), threading.Lock()
    watches = [_Watch(kubernetes, namespace, kind, followed, lock) for kind in ("trainingjobs", "jobs", "pods")]
    try:
        yield followed
    finally:
        for watch in watches:
            watch.stop()


class _Watch:
    """`kubectl get --watch` of what is new, line by line."""

    def __init__(
        self, kubernetes: Kubernetes, namespace: str, kind: str, followed: Followed, lock: threading.Lock
    ) -> None:
        program, config = kubernetes.cluster.kubectl, kubernetes.cluster.kubeconfig
        options = ["--watch-only", "--output-watch-events", "-o", 'jsonpath={}{"\\n"}']
        command = [str(program), f"--kubeconfig={config}", "-n", namespace, "get", kind, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, args=(followed, lock), daemon=True)
        self._thread.start()

    def _read(self, followed: Followed, lock: threading.Lock) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip():
                with lock:
                    followed.take(json.loads(line))

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
