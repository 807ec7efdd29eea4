"""The trainers of 200 jobs report at once to one gateway; what it writes is read from the API server's audit log."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import NAMESPACE, TIMEOUT, Gateway, Job, Kubernetes, Pod, control_plane, until
from trainyard_crds.constants import progress_path
from trainyard_crds.report import Progress, Report, Stage
from trainyard_crds.runconfig import Intake
from trainyard_trainer.clock import SystemClock
from trainyard_trainer.report.gateway_client import GatewayClient, PostError, create_sender
from trainyard_trainer.report.run_log import RunLog

pytestmark = pytest.mark.api
JOBS, CHANGING, ROUNDS = 200, 20, 4
INTERVAL, RATE = 10.0, 20
"""What the gateway promises: seconds between two writes of one job, writes per second in all."""
MEMORY = 256 * 1024
"""KiB it may ever have: half of the limit in the chart. 70 MB at the start, 0.45 MB per open connection."""
GROWTH = 8 * 1024
"""KiB that three more reports of every job may add: only the newest is kept."""
CLOCK = SystemClock()


@dataclass(frozen=True)
class Write:
    """One status patch, from the audit log."""

    job: str
    at: float
    code: int


class Trainer:
    """The reporting half of a real trainer, in threads of this process."""

    def __init__(self, gateway: Gateway, job: Job, pod: Pod, folder: Path, run_log: RunLog) -> None:
        token = folder / job.name
        token.write_text(pod.token)
        url = gateway.url(progress_path(job.namespace, job.name))
        self._post = create_sender(Intake(url=url, token_file=str(token), ca_file=str(gateway.ca)))
        self._client = GatewayClient(send=self._send, clock=CLOCK, run_log=run_log)
        self._client.start()
        self.job, self.taken, self.first_taken_at = job, -1, 0.0

    def report(self, sequence: int, stage: Stage) -> None:
        progress = Progress(stage=stage, step=10 * sequence, total_steps=100, updated_at=CLOCK.now())
        report = Report(sequence=sequence, owner_epoch=1, progress=progress, metrics={"loss": 1 / sequence})
        self._client.submit(report, urgent=sequence == 1)

    def close(self) -> None:
        self._client.close()

    def _send(self, body: bytes) -> PostError | None:
        problem = self._post(body)
        if problem is None:
            self.taken = json.loads(body)["sequence"]
            self.first_taken_at = self.first_taken_at or time.time()
        return problem


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with control_plane(f"test-gateway-load-{os.getpid()}") as kubernetes:
        yield kubernetes


def make_job(kubernetes: Kubernetes, number: int) -> tuple[Job, Pod]:
    """A running job as an operator and an earlier gateway left it."""
    job = kubernetes.job(f"load-{number:03}")
    pod = job.pod()
    job.record(pod, phase="Running", progress={"stage": "Training", "step": 1})
    return job, pod


def status_writes(kubernetes: Kubernetes) -> list[Write]:
    """The gateway's status patches in the order they came."""
    return sorted(
        (write_of(entry) for entry in kubernetes.audit() if is_status_write(entry)), key=lambda write: write.at
    )


def is_status_write(entry: dict[str, Any]) -> bool:
    made = (entry["verb"], entry["stage"], entry["user"]["username"])
    return made == ("patch", "ResponseComplete", f"system:serviceaccount:{SYSTEM}:trainyard-gateway")


def write_of(entry: dict[str, Any]) -> Write:
    at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
    return Write(entry["objectRef"]["name"], at, entry["responseStatus"]["code"])


def memory(gateway: Gateway) -> int:
    """Most KiB the process ever had."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def overtaken(trainer: Trainer, writes: list[Write], changing: set[str]) -> list[Write]:
    """Mere progress that was written after a change of stage was accepted and before that was written."""
    own = next(write.at for write in writes if write.job == trainer.job.name)
    between = [write for write in writes if trainer.first_taken_at < write.at < own]
    return [write for write in between if write.job not in changing]


def test_two_hundred_trainers_report_at_once(kubernetes: Kubernetes, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: make_job(kubernetes, number), range(JOBS)))
    gateway = Gateway(kubernetes, tmp_path).wait_until_ready()
    run_log = RunLog(tmp_path / "log", CLOCK)
    trainers = [Trainer(gateway, job, pod, tmp_path, run_log) for job, pod in made]
    changing, peaks = trainers[-CHANGING:], list[int]()
    open_at_once(gateway, JOBS)
    began = time.time()
    try:
        for sequence in range(1, ROUNDS + 1):
            for trainer in trainers:
                trainer.report(sequence, Stage.SAVING if trainer in changing else Stage.TRAINING)
            until(partial(all_taken, trainers, sequence))
            peaks.append(memory(gateway))
        until(lambda: last_steps(kubernetes) == {trainer.job.name: 10 * ROUNDS for trainer in trainers})
        writes = status_writes(kubernetes)
        check_limits(writes, began)
        check_order(writes, changing)
        assert peaks[-1] < MEMORY
        assert peaks[-1] - peaks[0] < GROWTH
        check_counts(gateway, writes)
    finally:
        for trainer in trainers:
            trainer.close()
        assert gateway.stop() == 0
    assert '"level": "ERROR"' not in gateway.log_text()


def all_taken(trainers: list[Trainer], sequence: int) -> bool:
    return all(trainer.taken == sequence for trainer in trainers)


def last_steps(kubernetes: Kubernetes) -> dict[str, int]:
    items = kubernetes.client.get(f"/apis/trainyard.dev/v1alpha1/namespaces/{NAMESPACE}/trainingjobs")["items"]
    return {item["metadata"]["name"]: item["status"]["progress"]["step"] for item in items}


def check_limits(writes: list[Write], began: float) -> None:
    """20 writes a second in all, one per job in 10 s: never have more come than may have been started until then.

    On their way from a busy process some gather, so what came within one second says nothing.
    """
    assert sooner_than(RATE, began, [write.at for write in writes]) == []
    times = defaultdict(list)
    for write in writes:
        times[write.job].append(write.at)
    assert len(times) == JOBS
    assert {job: early for job, each in times.items() if (early := sooner_than(1 / INTERVAL, began, each))} == {}


def sooner_than(rate: float, began: float, moments: list[float]) -> list[float]:
    """Seconds from the beginning to those moments that came before that many of a second were allowed."""
    return [at - began for number, at in enumerate(moments) if number > rate * (at - began)]


def open_at_once(gateway: Gateway, count: int) -> None:
    """Open as many connections as there may be at once: what the process grows by afterwards are reports."""
    with ExitStack() as stack:
        for _ in range(count):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT))
            stack.enter_context(gateway.context.wrap_socket(plain, server_hostname="127.0.0.1"))


def check_order(writes: list[Write], changing: list[Trainer]) -> None:
    """The changes came last, when many others waited, and were written before those."""
    names = {trainer.job.name for trainer in changing}
    for trainer in changing:
        assert len(overtaken(trainer, writes, names)) <= RATE, trainer.job.name  # a second's writes are on their way
    last_change = max(next(write.at for write in writes if write.job == name) for name in names)
    waited = {write.job for write in writes if write.at > last_change} - names
    assert len(waited) > JOBS / 4


def check_counts(gateway: Gateway, writes: list[Write]) -> None:
    """Its metrics agree with the audit log."""
    good = sum(write.code == 200 for write in writes)
    assert gateway.metric("trainyard_gateway_status_writes_total", outcome="written") == good == len(writes)
    accepted = gateway.metric("trainyard_gateway_reports_total", body="trainyard", result="Accepted")
    assert accepted >= JOBS * ROUNDS
    assert gateway.metric("trainyard_gateway_jobs") == JOBS
