"""Throughput, order and GPU use of a long queue: `python -m benchmarks.queue`, about 20 minutes.

The load is the one on which Kueue was measured: 2,000 jobs of 1, 2 and 8 GPUs (70, 20, 10 %), three priorities, pods
of 3 s, 8 fake nodes of 8 GPUs, control plane and client on the same two cores; in strict order, and with backfill. Then
the same jobs run on 64 nodes, and as plain Jobs without a queue. An independent client derives the order from the
admission time of each Job, and the GPU use from the running pods.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import Operator
from tests.queueing.load import PRIORITIES, SIZES
from tests.queueing.queue_fixture import long_queue

from benchmarks import audit
from benchmarks.control_plane import SECONDS, SHORT, Api, Object, client, prepare_namespace, training_job, wait_for
from benchmarks.follow import JOBS, PODS, TRAINING_JOBS
from benchmarks.observations import Seen, quantiles
from benchmarks.process import usage
from benchmarks.report import NONE, Report, machine
from cluster.kwok import GPUS
from trainyard_operator import gc_tuning

_NOTES = """\
peer: Kueue (after 0.19.2, BestEffortFIFO, one pod a Job), measured on such a machine with the same load, two runs.
jobs/s: from the first create call to the last end, and between 10 and 90 % of the ends.
admissions/s: from the first create call to the last Job (without a queue: to the last pod with a node).
GPU use: GPUs of running pods over all GPUs, over the time from the first to the last start.
overtakes: pairs of neighbours of one priority in the order of enqueuedAt of which the later was admitted first.
writes: create, update, patch and delete requests of the audit log in the jobs' namespace, Events apart.
CPU per job: of each process, over the whole run; the client is this benchmark."""
_LANES = 20
"""Concurrent create calls."""


@dataclass(frozen=True)
class Setting:
    """One run.

    Attributes:
        title: Begins its lines.
        nodes: Of 8 GPUs each.
        policy: The queue's settings.
        spec: More of each job's spec.
        bars: By the name of a line.
        peers: Likewise.
    """

    title: str
    nodes: int
    policy: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    bars: Mapping[str, str] = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)


_CREATES, _RATE, _ADMISSIONS = "creates (s)", "jobs/s, whole run; 10 to 90 %", "admissions/s"
_USE, _OVERTAKES, _WRITES = "GPU use (%)", "overtakes within a priority", "operator: writes per job"
_WAIT, _CPU = "priority {}: time to admission p50 / p95 / p99 (s)", "CPU per job (ms)"
SETTINGS = {
    "strict": Setting(
        "strict, 8 nodes",
        nodes=8,
        bars={_RATE: "> 7", _USE: "> 70", _OVERTAKES: "0", _WRITES: "<= 12"},
        peers={
            _CREATES: "14.1, 15.2",
            _RATE: "5.1, 5.5; 6.0, 6.1",
            _USE: "55, 56",
            _OVERTAKES: "549, 462",
            _WRITES: "8.1 (+ 6.9), 8.0 (+ 6.8)",
            _WAIT.format(9): "130 / 187 / 190",
            _WAIT.format(5): "239 / 278 / 283",
            _WAIT.format(1): "332 / 370 / 375",
            _CPU: "apiserver 138, 141; itself 35, 35",
        },
    ),
    "backfill": Setting(
        "backfill, 8 nodes",
        nodes=8,
        policy={"backfill": True},
        spec={"activeDeadlineSeconds": 60, "checkpoints": {"gracePeriodSeconds": 10}},
        bars={_RATE: "9", _USE: "88"},
    ),
    "wide": Setting("strict, 64 nodes", nodes=64, bars={_ADMISSIONS: ">= 20", _OVERTAKES: "0", _WRITES: "<= 12"}),
}
FLOORS = {"floor": 8, "floor-wide": 64}
"""Sections without a queue, and their nodes."""


async def fill(api: Api, path: str, bodies: list[Object], created: Callable[[Object], None]) -> None:
    """Create objects concurrently."""
    lanes = asyncio.Semaphore(_LANES)

    async def create(body: Object) -> None:
        async with lanes:
            created(await api.create(path, body))

    await asyncio.gather(*(create(body) for body in bodies))


@dataclass(frozen=True)
class Run:
    """One setting on one control plane."""

    kubernetes: Kubernetes
    report: Report
    setting: Setting
    count: int
    seed: int

    def add(self, what: str, ours: str) -> None:
        """Add a line for this run."""
        self.report.add(
            f"{self.setting.title}: {what}", ours, self.setting.bars.get(what, NONE), self.setting.peers.get(what, NONE)
        )

    def lots(self) -> Iterator[tuple[int, int]]:
        """GPUs and priority of each job."""
        dice = random.Random(self.seed)
        return ((dice.choice(SIZES), dice.choice(PRIORITIES)) for _ in range(self.count))


Takers = Mapping[str, Callable[[Object, float], None]]


async def until_ended(
    run: Run, api: Api, takers: Takers, work: Callable[[], Awaitable[None]], done: Callable[[], bool]
) -> None:
    """Do something, watch until all jobs have ended, and report broken watches."""
    watches = [asyncio.create_task(api.watch(path.format(SHORT), take)) for path, take in takers.items()]
    await asyncio.sleep(0.3)
    await work()
    await wait_for(done, 60 + run.count, f"all {run.count} jobs ended")
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    for text, times in Counter(api.broken_watches).items():
        run.report.notes.append(f"a watch of the client was opened again, {times} times: {text}")


async def measure(run: Run, operator: Operator) -> None:
    """Fill the queue, watch it drain, and report the figures."""
    seen, since, before = Seen(), audit.now(), usage(operator.process.pid)
    bodies = [
        training_job(SHORT, f"job-{number:05d}", gpus=gpus, queue={"priority": priority}, **run.setting.spec)
        for number, (gpus, priority) in enumerate(run.lots())
    ]

    def created(made: Object) -> None:
        seen.answered[str(made["metadata"]["uid"])] = time.monotonic()

    async with client(run.kubernetes) as api:
        began = time.monotonic()

        async def create_all() -> None:
            nonlocal began
            began = time.monotonic()
            await fill(api, TRAINING_JOBS.format(SHORT), bodies, created)
            run.add(_CREATES, f"{time.monotonic() - began:.1f}")

        takers = {TRAINING_JOBS: seen.take_training_job, JOBS: seen.take_job, PODS: seen.take_pod}
        with cpu_per_job(run, operator=operator.process.pid):
            await until_ended(run, api, takers, create_all, lambda: len(seen.ended) == run.count)
    report_figures(run, seen, began)
    after = usage(operator.process.pid)
    rss = f"{before.rss:.0f} -> {after.rss:.0f} ({after.peak:.0f})"
    run.add("operator: RSS before -> after (peak) (MiB)", rss)
    await asyncio.sleep(0.5)
    log = run.kubernetes.cluster.audit_log
    found = audit.requests(log, since=since, until=audit.now(), containing=f'"namespace":"{SHORT}"')
    ours = [each for each in found if each.actor == "operator" and each.verb in audit.WRITES]
    events = sum(each.resource == "events" for each in ours)
    run.add(_WRITES, f"{(len(ours) - events) / run.count:.1f} (+ {events / run.count:.1f} Events)")


@contextmanager
def cpu_per_job(run: Run, **more: int) -> Iterator[None]:
    """Report the CPU of each process of the control plane, of this one, and of more by name and process id."""
    processes = run.kubernetes.cluster.plane.processes
    found = {name: pid for name in processes.names() if (pid := processes.pid(name)) is not None}
    measured = {**found, **more, "client": os.getpid()}
    before = {name: usage(pid).cpu for name, pid in measured.items()}
    yield
    used = {name: (usage(pid).cpu - before[name]) / run.count * 1000 for name, pid in measured.items()}
    run.add(_CPU, ", ".join(f"{name} {used[name]:.0f}" for name in sorted(used, key=lambda one: -used[one])))


def report_figures(run: Run, seen: Seen, began: float) -> None:
    """Report the client's measurements."""
    ends = sorted(seen.ended.values())
    run.add(_RATE, rates(ends, began))
    run.add(_ADMISSIONS, f"{len(seen.child) / (max(seen.child.values()) - began):.1f}")
    run.add(_USE, f"{100 * seen.use(run.setting.nodes * GPUS):.0f}")
    run.add(_OVERTAKES, str(seen.overtakes()))
    phases = {job.get("status", {}).get("phase", "") for job in seen.jobs.values()}
    run.add("jobs that ended; how", f"{len(ends)} of {run.count}; {', '.join(sorted(phases))}")
    for priority in reversed(PRIORITIES):
        run.add(_WAIT.format(priority), quantiles(seen.waits(priority)))


def rates(ends: list[float], began: float) -> str:
    """Jobs per second, over the whole run and in the middle of it."""
    middle = ends[int(0.1 * len(ends)) : int(0.9 * len(ends))]
    return f"{len(ends) / (ends[-1] - began):.1f}; {len(middle) / (middle[-1] - middle[0]):.1f}"


async def measure_floor(run: Run) -> None:
    """Run the same pods as plain Jobs: Job controller and scheduler without queue, order or status."""
    seen, bound, ended = Seen(), dict[str, float](), dict[str, float]()

    def take_pod(obj: Object, at: float) -> None:
        seen.take_pod(obj, at)
        if obj["spec"].get("nodeName"):
            seen.child.setdefault(obj["metadata"]["uid"], at)
            bound.setdefault(obj["metadata"]["uid"], at)

    def take_job(obj: Object, at: float) -> None:
        conditions = obj.get("status", {}).get("conditions", [])
        if any(one["type"] == "Complete" and one["status"] == "True" for one in conditions):
            ended.setdefault(obj["metadata"]["uid"], at)

    bodies = [plain_job(f"plain-{number:05d}", gpus) for number, (gpus, _) in enumerate(run.lots())]
    async with client(run.kubernetes) as api:
        began = time.monotonic()

        async def create_all() -> None:
            nonlocal began
            began = time.monotonic()
            await fill(api, JOBS.format(SHORT), bodies, lambda _: None)
            run.add(_CREATES, f"{time.monotonic() - began:.1f}")

        with cpu_per_job(run):
            takers = {JOBS: take_job, PODS: take_pod}
            await until_ended(run, api, takers, create_all, lambda: len(ended) == run.count)
    run.add(_RATE, rates(sorted(ended.values()), began))
    run.add(_ADMISSIONS, f"{len(bound) / (max(bound.values()) - began):.1f}")
    run.add(_USE, f"{100 * seen.use(run.setting.nodes * GPUS):.0f}")


def plain_job(name: str, gpus: int) -> Object:
    """Return a Job whose pod has the scheduling requirements of a TrainingJob."""
    resources = training_job(SHORT, name, gpus=gpus)["spec"]["resources"]
    limits = {"nvidia.com/gpu": str(gpus), "cpu": resources["cpu"], "memory": resources["memory"]}
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": resources["nodeSelector"],
        "tolerations": resources["tolerations"],
        "containers": [{"name": "trainer", "image": "x", "resources": {"limits": limits}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}},
    }


def measure_pass(report: Report, waiting: int) -> None:
    """CPU of passes over a long queue in which a job has ended since the last one; no cluster."""
    gc_tuning.reduce_collections()  # as the operator does
    queue, times = long_queue(waiting, 64), list[float]()
    for number in range(40):
        queue.end(f"running-{number}")
        began = time.process_time()
        queue.cycle(1.0)
        times.append((time.process_time() - began) * 1000)
    times.sort()
    text = f"{times[len(times) // 2]:.0f} / {times[-1]:.0f}"
    report.add(f"one pass over {waiting} waiting jobs, 64 nodes: p50 / longest (ms of CPU)", text, "< 100")


def measure_load(report: Report, setting: Setting, count: int, seed: int) -> None:
    """A load on a control plane of its own."""
    with plane(setting.nodes) as kubernetes, tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.json"
        policy.write_text(json.dumps(setting.policy))
        operator = Operator(kubernetes, Path(folder), TRAINYARD_QUEUE_POLICY=str(policy))
        try:
            operator.wait_for_leadership()
            asyncio.run(measure(Run(kubernetes, report, setting, count, seed), operator))
        finally:
            operator.kill()


@contextmanager
def plane(nodes: int) -> Iterator[Kubernetes]:
    """A control plane whose pods end after 3 s."""
    with kwok_support.control_plane(f"bench-{os.getpid()}", nodes=nodes, seconds=SECONDS) as kubernetes:
        prepare_namespace(kubernetes, SHORT)
        yield kubernetes


def main() -> None:
    sections = ("pass", *SETTINGS, *FLOORS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="100 jobs: does it work at all?")
    parser.add_argument("--only", choices=sections, action="append", help="section (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of sizes and priorities")
    chosen = parser.parse_args()
    report = Report("The GPU queue", machine("kopf", "kubernetes", "aiohttp"), notes=_NOTES.splitlines())
    report.setup["nodes"] = f"of {GPUS} GPUs, pods of 3 s; seed {chosen.seed}"
    count = 100 if chosen.quick else 2000
    try:
        for section in chosen.only or sections:
            if section == "pass":
                measure_pass(report, 10_000)
            elif section in SETTINGS:
                measure_load(report, SETTINGS[section], count, chosen.seed)
            else:
                setting = Setting(f"no queue, {FLOORS[section]} nodes", FLOORS[section])
                with plane(setting.nodes) as kubernetes:
                    asyncio.run(measure_floor(Run(kubernetes, report, setting, count, chosen.seed)))
    finally:
        report.setup["load average after (1, 5, 15 min)"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        report.publish(chosen.json)


if __name__ == "__main__":
    main()
