"""Latency, API writes and idle cost of operator and gateway: `python -m benchmarks.operator`, about 8 minutes.

A real kube-apiserver, etcd, controller manager and scheduler with fake nodes (kwok), a real operator and a real gateway
with the chart's permissions, each in its own process. The reference figures were measured with the same control plane,
the same raised client limits of its controllers, the same fake nodes and the same clock (arrival of a watch event at
one client process).
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.api.gateway_support import Gateway, Kubernetes
from tests.api.operator_support import Operator

from benchmarks import audit, reference
from benchmarks.control_plane import (
    LONG,
    REPORTED,
    SHORT,
    Api,
    client,
    control_plane,
    prepare_namespace,
    training_job,
    wait_for,
)
from benchmarks.follow import TRAINING_JOBS, JobTimes, record_times
from benchmarks.process import Usage, usage
from benchmarks.report import NONE, Report, machine, p50_p99
from benchmarks.trainers import PlayedTrainers

_NOTES = f"""\
peer: {reference.NAME}, measured on a machine of the same kind (2 cores, control plane, kwok and client on it), two \
runs; its webhooks on, its client limits as shipped. A dash: not measured.
p50 / p99 in ms, from the response to the create call to the arrival of the watch event at one independent client.
writes: create, update, patch and delete requests of the audit log in the jobs' namespace, failed ones included, \
divided by the jobs. Ours: operator and gateway, Events listed separately. All: every process but the client.
A TokenReview and a TokenRequest write nothing and are not counted as writes."""


@dataclass(frozen=True)
class Scale:
    """Size of the benchmark.

    Attributes:
        jobs: TrainingJobs of a latency run.
        reported: TrainingJobs whose trainers report.
        held: TrainingJobs that exist during the idle measurement.
        many: Suspended TrainingJobs of section `scale`.
        idle: Duration of the idle measurement in seconds.
    """

    jobs: int = 100
    reported: int = 20
    held: int = 1000
    many: int = 5000
    idle: int = 60


QUICK = Scale(jobs=10, reported=3, held=30, many=100, idle=5)


@dataclass
class Bench:
    """Shared state of all sections."""

    kubernetes: Kubernetes
    api: Api
    operator: Operator
    gateway: Gateway
    report: Report
    scale: Scale

    async def requests(self, since: str, containing: str, until: str = "") -> list[audit.Request]:
        """Return the requests of a period; waits first, since the audit log is written with a delay."""
        until = until or audit.now()
        await asyncio.sleep(0.5)
        log = self.kubernetes.cluster.audit_log
        return audit.requests(log, since=since, until=until, containing=containing)


# --- latency ----------------------------------------------------------------------------------------------------------


async def paced(bench: Bench, times: JobTimes, *, namespace: str, count: int, per_second: float, prefix: str) -> None:
    """Create jobs at a fixed rate."""
    began, calls = time.monotonic(), []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        body = training_job(namespace, f"{prefix}-{number:03d}", gpus=1)
        calls.append(asyncio.create_task(times.create(bench.api, body)))
    await asyncio.gather(*calls)


async def burst(bench: Bench, times: JobTimes, *, namespace: str, count: int, prefix: str) -> None:
    """Create jobs all at once."""
    await bench.api.warm()
    bodies = [training_job(namespace, f"{prefix}-{number:03d}", gpus=1) for number in range(count)]
    await asyncio.gather(*(times.create(bench.api, body) for body in bodies))


Create = Callable[[JobTimes], Awaitable[None]]


async def latency(bench: Bench, name: str, create: Create, bar: str, other: reference.Latency) -> None:
    """Measure jobs from the create call to their end, and count their requests."""
    since, before = audit.now(), usage(bench.operator.process.pid)
    async with record_times(bench.api, SHORT) as times:
        await create(times)
        uids = set(times.at["answered"])
        await wait_for(lambda: times.all_at("succeeded", uids), 120, f"{name}: all {len(uids)} jobs Succeeded")
        await _until_quiet(bench)  # Events are written one by one
    add = bench.report.add
    add(f"{name}: create call (ms)", p50_p99(times.create_calls), peer=other.call)
    add(f"{name}: -> child Job created (ms)", p50_p99(times.between("answered", "child")), bar, other.child)
    add(f"{name}: -> pod Running (ms)", p50_p99(times.between("answered", "running")), peer=other.running)
    ended = p50_p99(times.between("complete", "succeeded"))
    add(f"{name}: Job Complete -> Succeeded (ms)", ended, peer=other.ended)
    cpu = (usage(bench.operator.process.pid).cpu - before.cpu) / len(uids) * 1000
    add(f"{name}: CPU of the operator per job (ms)", f"{cpu:.0f}", peer=other.cpu)
    bench.report.notes += [
        f"{name}: a watch of the client was interrupted: {each}" for each in bench.api.broken_watches
    ]
    bench.api.broken_watches.clear()
    found = await bench.requests(since, f'"namespace":"{SHORT}"')
    what = f"{name}, pod of 3 s, no reports"
    add_writes(bench, what, found, len(uids), ours=other.ours, all_writers=other.all_writers)


def add_writes(
    bench: Bench, name: str, found: list[audit.Request], jobs: int, *, ours: str = NONE, all_writers: str = NONE
) -> None:
    """Add two lines: writes per job of ours, and of all."""
    writes = [
        each
        for each in found
        if each.verb in audit.WRITES and each.actor != "client" and not each.resource.endswith("/token")
    ]
    own = [each for each in writes if each.actor in ("operator", "gateway")]
    events = [each for each in own if each.resource == "events"]
    by_actor = Counter(each.actor for each in own if each.resource != "events")
    parts = ", ".join(f"{actor} {count / jobs:.1f}" for actor, count in sorted(by_actor.items()))
    text = f"{(len(own) - len(events)) / jobs:.1f} (+ {len(events) / jobs:.1f} Events); {parts}"
    refused = sum(each.code >= 400 for each in own) / jobs
    bench.report.add(f"writes per job, ours ({name})", f"{text}; refused {refused:.2f}", "<= 12", ours)
    bench.report.add(f"writes per job, all ({name})", f"{len(writes) / jobs:.1f}", "<= 20", all_writers)
    labels = Counter(f"{each.actor}: {each.label}" for each in writes)
    listed = "; ".join(f"{label} {count / jobs:.2f}" for label, count in sorted(labels.items()))
    bench.report.notes.append(f"writes per job ({name}): {listed}")


# --- jobs with reports ------------------------------------------------------------------------------------------------


async def reported_lives(bench: Bench) -> None:
    """Measure jobs of 12 s whose trainers report to the gateway."""
    since, count = audit.now(), bench.scale.reported
    async with record_times(bench.api, REPORTED) as times:
        trainers = PlayedTrainers(bench.api, bench.gateway)
        times.on_running = trainers.start
        await paced(bench, times, namespace=REPORTED, count=count, per_second=2, prefix="reported")
        uids = set(times.at["answered"])
        await wait_for(lambda: times.all_at("succeeded", uids), 120, f"all {count} reported jobs Succeeded")
        await trainers.close()
        await _until_quiet(bench)
    found = await bench.requests(since, f'"namespace":"{REPORTED}"')
    sent = trainers.accepted / count
    add_writes(bench, f"pod of 12 s, {sent:.1f} reports accepted per job", found, count)
    reviews = [
        each
        for each in await bench.requests(since, audit.SERVICE_ACCOUNTS["gateway"])
        if each.resource == "tokenreviews"
    ]
    bench.report.add("TokenReviews per job", f"{len(reviews) / count:.1f}")
    if trainers.refused:
        bench.report.notes.append(f"reports refused: {dict(trainers.refused)}")


# --- idle jobs --------------------------------------------------------------------------------------------------------


async def held(bench: Bench, namespace: str, count: int, *, suspend: bool, bar: str) -> None:
    """Measure memory, CPU and requests of operator and gateway while many jobs are idle."""
    kind = "suspended" if suspend else "running"
    peers = suspend and count == bench.scale.held
    empty = _usages(bench)
    async with record_times(bench.api, namespace) as times:
        began = time.monotonic()
        await _fill(bench, times, namespace, count, suspend=suspend)
        uids = set(times.at["answered"])
        if not suspend:
            if await wait_for(lambda: times.all_at("child", uids), 180, f"{count} child Jobs"):
                last = max(times.at["child"].values()) - began
                bench.report.add(
                    f"{count} TrainingJobs created: last child Job after (s)", f"{last:.1f}", peer=reference.FILLED
                )
            await wait_for(lambda: times.all_at("running", uids), 240, f"{count} pods Running")
    await _until_quiet(bench)
    first, since = _usages(bench), audit.now()
    await asyncio.sleep(bench.scale.idle)
    second, until = _usages(bench), audit.now()
    for part, before in first.items():
        after = second[part]
        name, share = f"{count} {kind}: {part}", 100 * (after.cpu - before.cpu) / bench.scale.idle
        rss = f"{empty[part].rss:.0f} -> {after.rss:.0f} (peak {after.peak:.0f})"
        bench.report.add(f"{name}: RSS empty -> with them (MiB)", rss, bar, reference.RSS if peers else NONE)
        what = f"{name}: idle CPU (% of a core, {bench.scale.idle} s)"
        bench.report.add(what, f"{share:.2f}", peer=reference.IDLE_CPU if peers else NONE)
        sent = await bench.requests(since, audit.SERVICE_ACCOUNTS[part], until)
        what = f"{name}: API requests in {bench.scale.idle} s"
        bench.report.add(what, _listed(sent), "none but the Lease", reference.IDLE_WRITES if peers else NONE)


def _listed(requests: list[audit.Request]) -> str:
    lease = sum(each.resource == "leases" for each in requests)
    others = Counter(each.label for each in requests if each.resource != "leases")
    text = ", ".join(f"{label} {number}" for label, number in sorted(others.items())) or "none"
    return f"{text}; {lease} of the Lease"


async def _fill(bench: Bench, times: JobTimes, namespace: str, count: int, *, suspend: bool) -> None:
    gate = asyncio.Semaphore(50)

    async def create(number: int) -> None:
        async with gate:
            body = training_job(namespace, f"held-{number:04d}", gpus=0, suspend=suspend)
            await times.create(bench.api, body)

    await asyncio.gather(*(create(number) for number in range(count)))


def _usages(bench: Bench) -> dict[str, Usage]:
    return {"operator": usage(bench.operator.process.pid), "gateway": usage(bench.gateway.process.pid)}


async def _until_quiet(bench: Bench) -> None:
    """Wait until operator and gateway are idle: next to no CPU for 5 s."""
    for _ in range(60):
        before = _usages(bench)
        await asyncio.sleep(5)
        after = _usages(bench)
        if all(after[part].cpu - before[part].cpu < 0.2 for part in before):
            return


async def restarts(bench: Bench, what: str, bar: str, other: str = NONE) -> None:
    """Measure the first child Job when a TrainingJob is created while the operator restarts."""
    ways: dict[str, Callable[[], object]] = {"SIGTERM": bench.operator.stop, "kill -9": bench.operator.kill}
    for number, (way, end) in enumerate(ways.items()):
        async with record_times(bench.api, SHORT) as times:
            end()
            began = time.monotonic()
            start = asyncio.get_running_loop().run_in_executor(None, bench.operator.restart)
            name = f"restart-{what.replace(' ', '-')}-{number}"
            uid = await times.create(bench.api, training_job(SHORT, name, gpus=1))
            await wait_for(lambda: uid in times.at["child"], 60, "the first child Job after a restart")  # noqa: B023
            await start
            seconds = times.at["child"].get(uid, float("nan")) - began
        bench.report.add(f"{what}: restart ({way}) -> first new child Job (s)", f"{seconds:.2f}", bar, other)
    await _until_quiet(bench)
    after = usage(bench.operator.process.pid)
    bench.report.add(f"{what}: RSS of the operator after a restart (MiB)", f"{after.rss:.0f} (peak {after.peak:.0f})")


async def remove_all(bench: Bench, namespace: str) -> None:
    """Delete the TrainingJobs of a namespace and wait until they and their pods are gone."""
    await bench.api.delete(TRAINING_JOBS.format(namespace))
    for _ in range(240):
        left = [
            len((await bench.api.get(f"{path}?limit=1"))["items"])
            for path in (TRAINING_JOBS.format(namespace), f"/api/v1/namespaces/{namespace}/pods")
        ]
        if not any(left):
            return
        await asyncio.sleep(0.5)
    bench.report.notes.append(f"{namespace} was not empty 120 s after its TrainingJobs were deleted")


# --- all sections -----------------------------------------------------------------------------------------------------

SECTIONS = ("paced", "burst", "reported", "suspended", "running", "scale")


async def run(bench: Bench, sections: set[str]) -> None:
    """Run the sections in an order in which none disturbs the next."""
    count = bench.scale.jobs
    async with record_times(bench.api, SHORT) as times:
        await paced(bench, times, namespace=SHORT, count=3, per_second=5, prefix="warm")
        uids = set(times.at["answered"])
        await wait_for(lambda: times.all_at("succeeded", uids), 60, "the warm-up")
    if "paced" in sections:
        steady = functools.partial(paced, bench, namespace=SHORT, count=count, per_second=5, prefix="paced")
        await latency(bench, f"{count} jobs, 5/s", steady, "20 / 40", reference.PACED)
    if "burst" in sections:
        at_once = functools.partial(burst, bench, namespace=SHORT, count=count, prefix="burst")
        await latency(bench, f"burst of {count}", at_once, "p99 < 1000", reference.BURST)
    if "reported" in sections:
        await reported_lives(bench)
    for namespace in (SHORT, REPORTED):
        await remove_all(bench, namespace)
    if "suspended" in sections:
        await at_rest(bench, "suspended")
        await remove_all(bench, LONG)
        await remove_all(bench, SHORT)
    if "running" in sections:
        await at_rest(bench, "running")
        await remove_all(bench, LONG)
        await remove_all(bench, SHORT)
    if "scale" in sections:
        await at_scale(bench)


async def at_rest(bench: Bench, kind: str) -> None:
    """Measure idle cost and restarts with many jobs, after restarting the processes."""
    count = bench.scale.held
    await asyncio.to_thread(_restart_processes, bench)
    await asyncio.sleep(3)
    await held(bench, LONG, count, suspend=kind == "suspended", bar="<= 200")
    await restarts(bench, f"{count} {kind}", "< 5", reference.RESTART if kind == "suspended" else NONE)


async def at_scale(bench: Bench) -> None:
    """Measure idle cost and restarts with the largest supported number of jobs."""
    count = bench.scale.many
    await asyncio.to_thread(_restart_processes, bench)
    await asyncio.sleep(3)
    await held(bench, LONG, count, suspend=True, bar="<= 250")
    await restarts(bench, f"{count} suspended", "<= 15")


def _restart_processes(bench: Bench) -> None:
    bench.operator.stop()
    bench.operator.restart()
    bench.gateway.stop()
    folder = bench.gateway.folder
    bench.gateway = Gateway(bench.kubernetes, folder)


async def measure(kubernetes: Kubernetes, folder: Path, report: Report, scale: Scale, sections: set[str]) -> None:
    """Start operator and gateway, run the sections, stop them."""
    for part in ("operator", "gateway"):
        (folder / part).mkdir()
    operator = Operator(kubernetes, folder / "operator")
    try:
        operator.wait_for_leadership()
        async with client(kubernetes) as api:
            bench = Bench(kubernetes, api, operator, Gateway(kubernetes, folder / "gateway"), report, scale)
            try:
                await run(bench, sections)
            finally:
                bench.gateway.stop()
    finally:
        operator.kill()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="few jobs and seconds: a smoke test")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="section (default: all)")
    chosen = parser.parse_args()
    report = Report("Operator and gateway", machine("kopf", "kubernetes", "aiohttp"), notes=_NOTES.splitlines())
    scale = QUICK if chosen.quick else Scale()
    try:
        with control_plane(f"bench-{os.getpid()}") as kubernetes, tempfile.TemporaryDirectory() as folder:
            for namespace in (SHORT, REPORTED, LONG):
                prepare_namespace(kubernetes, namespace)
            asyncio.run(measure(kubernetes, Path(folder), report, scale, set(chosen.only or SECTIONS)))
    finally:  # a failure must not lose the figures before it
        report.setup["load average after (1, 5, 15 min)"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        report.publish(chosen.json)


if __name__ == "__main__":
    main()
