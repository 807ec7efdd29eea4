"""What the GPU queue makes of a long queue: `python -m benchmarks.queue`, about 7 minutes.

The load on which Kueue was measured: 2,000 jobs of 1, 2 and 8 GPUs (70, 20, 10 %), three priorities, pods of 3 s, 8
fake nodes of 8 GPUs, control plane and client on the same two cores. The order is checked from the moment of admission
that stands on each Job, the use of the GPUs from the pods that run, both as one independent client sees them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import Operator
from tests.api.queue_support import PRIORITIES, SIZES
from tests.unit.operator.test_long_queue import long_queue

from benchmarks import audit
from benchmarks.follow import JOBS, PODS, TRAINING_JOBS
from benchmarks.plane import SECONDS, SHORT, Api, Object, client, prepare_namespace, training_job, wait_for
from benchmarks.process import usage
from benchmarks.report import Report, machine
from cluster.kwok import GPUS
from trainyard_crds.contract import ADMITTED_ANNOTATION, JOB_UID_LABEL

_NOTES = """\
peer: Kueue (after 0.19.2, BestEffortFIFO, one pod a Job), measured on such a machine with the same load, two runs.
jobs/s: from the first create call to the last end, and between 10 and 90 % of the ends.
GPU use: GPUs of running pods over all GPUs, over the time from the first to the last start.
overtakes: pairs of neighbours of one priority in the order of enqueuedAt of which the later was let in first.
writes: create, update, patch and delete requests of the audit log in the jobs' namespace, Events apart."""
NODES = 8
_LANES = 20
"""Create calls at a time."""


@dataclass
class Seen:
    """What the client saw of all jobs.

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

    def use(self) -> float:
        """Share of the GPUs that ran, from the first start to the last start."""
        last = max(at for at, _ in self.used if at <= max(self.child.values()))
        first = next(at for at, gpus in self.used if gpus)
        area = sum((then - at) * gpus for (at, gpus), (then, _) in pairwise(self.used) if first <= at <= last)
        return area / (last - first) / (NODES * GPUS)

    def overtakes(self) -> int:
        """Neighbours of one priority that were let in the wrong way round."""
        found = 0
        for priority in PRIORITIES:
            jobs = [job for job in self.jobs.values() if job["spec"]["queue"]["priority"] == priority]
            line = sorted(jobs, key=lambda job: str(job["status"]["queue"]["enqueuedAt"]))
            moments = [self.admitted[job["metadata"]["uid"]] for job in line]
            found += sum(before >= after for before, after in pairwise(moments))
        return found

    def waits(self, priority: int) -> list[float]:
        """Seconds from the create call's answer to the child Job, of the jobs of a priority."""
        uids = [uid for uid, job in self.jobs.items() if job["spec"]["queue"]["priority"] == priority]
        return [self.child[uid] - self.answered[uid] for uid in uids if uid in self.child]


def quantiles(values: Sequence[float]) -> str:
    """p50, p95 and p99."""
    ordered = sorted(values)
    return " / ".join(f"{ordered[min(len(ordered) - 1, int(len(ordered) * q))]:.0f}" for q in (0.5, 0.95, 0.99))


async def fill(api: Api, seen: Seen, count: int, seed: int) -> None:
    """Create the jobs, some at a time."""
    dice, lanes = random.Random(seed), asyncio.Semaphore(_LANES)

    async def create(body: Object) -> None:
        async with lanes:
            made = await api.create(TRAINING_JOBS.format(SHORT), body)
            seen.answered[str(made["metadata"]["uid"])] = time.monotonic()

    bodies = [
        training_job(SHORT, f"job-{number:05d}", gpus=dice.choice(SIZES), queue={"priority": dice.choice(PRIORITIES)})
        for number in range(count)
    ]
    await asyncio.gather(*(create(body) for body in bodies))


async def measure(kubernetes: Kubernetes, operator: Operator, report: Report, count: int, seed: int) -> None:
    """Fill the queue, watch it empty, and say how it went."""
    seen, since, before = Seen(), audit.now(), usage(operator.process.pid)
    async with client(kubernetes) as api:
        takers = ((TRAINING_JOBS, seen.take_training_job), (JOBS, seen.take_job), (PODS, seen.take_pod))
        watches = [asyncio.create_task(api.watch(path.format(SHORT), take)) for path, take in takers]
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await fill(api, seen, count, seed)
        report.add(f"{count} creates (s)", f"{time.monotonic() - began:.1f}", peer="14.1, 15.2")
        await wait_for(lambda: len(seen.ended) == count, 60 + count, f"all {count} jobs ended")
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for text, times in Counter(api.broken_watches).items():
            report.notes.append(f"a watch of the client was opened again, {times} times: {text}")
    tell(report, seen, began, count)
    after = usage(operator.process.pid)
    report.add("operator: CPU per job (ms)", f"{(after.cpu - before.cpu) / count * 1000:.1f}", peer="34.9, 34.7")
    report.add("operator: RSS before -> after (peak) (MiB)", f"{before.rss:.0f} -> {after.rss:.0f} ({after.peak:.0f})")
    await asyncio.sleep(0.5)
    log = kubernetes.cluster.audit_log
    found = audit.requests(log, since=since, until=audit.now(), containing=f'"namespace":"{SHORT}"')
    ours = [each for each in found if each.who == "operator" and each.verb in audit.WRITES]
    events = sum(each.resource == "events" for each in ours)
    text = f"{(len(ours) - events) / count:.1f} (+ {events / count:.1f} Events)"
    report.add("operator: writes per job", text, "<= 12", "8.1 (+ 6.9), 8.0 (+ 6.8)")


def tell(report: Report, seen: Seen, began: float, count: int) -> None:
    """The figures that the client saw."""
    ends = sorted(seen.ended.values())
    middle = ends[int(0.1 * len(ends)) : int(0.9 * len(ends))]
    rate, steady = len(ends) / (ends[-1] - began), len(middle) / (middle[-1] - middle[0])
    report.add("jobs/s, whole run; 10 to 90 %", f"{rate:.1f}; {steady:.1f}", "> 7", "5.1, 5.5; 6.0, 6.1")
    report.add("GPU use (%)", f"{100 * seen.use():.0f}", "> 70", "55, 56")
    report.add("overtakes within a priority", str(seen.overtakes()), "0", "549, 462")
    phases = {job.get("status", {}).get("phase", "") for job in seen.jobs.values()}
    report.add("jobs that ended; how", f"{len(ends)} of {count}; {', '.join(sorted(phases))}")
    peers = {9: "130 / 187 / 190", 5: "239 / 278 / 283", 1: "332 / 370 / 375"}
    for priority in reversed(PRIORITIES):
        waits = quantiles(seen.waits(priority))
        report.add(f"priority {priority}: time to admission p50 / p95 / p99 (s)", waits, peer=peers[priority])


def measure_pass(report: Report, waiting: int) -> None:
    """Time passes over a long queue in which a job has ended since the last one; no cluster."""
    yard, times = long_queue(waiting, 64), list[float]()
    for number in range(40):
        yard.end(f"running-{number}")
        began = time.perf_counter()
        yard.round(1.0)
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    text = f"{times[len(times) // 2]:.0f} / {times[-1]:.0f}"
    report.add(f"one pass over {waiting} waiting jobs, 64 nodes: p50 / longest (ms)", text, "< 100")


def measure_load(report: Report, count: int, seed: int) -> None:
    """The load on a control plane of its own."""
    plane = kwok_support.control_plane(f"bench-{os.getpid()}", nodes=NODES, seconds=SECONDS)
    with plane as kubernetes, tempfile.TemporaryDirectory() as folder:
        prepare_namespace(kubernetes, SHORT)
        operator = Operator(kubernetes, Path(folder))
        try:
            operator.wait_for_leadership()
            asyncio.run(measure(kubernetes, operator, report, count, seed))
        finally:
            operator.kill()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="100 jobs: does it work at all?")
    parser.add_argument("--only", choices=("pass", "load"), help="default: both")
    parser.add_argument("--seed", type=int, default=1, help="of sizes and priorities")
    chosen = parser.parse_args()
    report = Report("The GPU queue", machine("kopf", "kubernetes", "aiohttp"), notes=_NOTES.splitlines())
    report.setup["nodes"] = f"{NODES} of {GPUS} GPUs, pods of 3 s; seed {chosen.seed}"
    try:
        if chosen.only != "load":
            measure_pass(report, 10_000)
        if chosen.only != "pass":
            measure_load(report, 100 if chosen.quick else 2000, chosen.seed)
    finally:
        report.setup["load average after (1, 5, 15 min)"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        report.publish(chosen.json)


if __name__ == "__main__":
    main()
