"""The trainers of 200 jobs report to one gateway at once; its writes are read from the API server's audit log."""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import NAMESPACE, Gateway, Job, Kubernetes, Pod, control_plane, until
from trainyard_crds.constants import progress_path
from trainyard_crds.report import Progress, Report, Stage
from trainyard_crds.runconfig import Intake
from trainyard_trainer.clock import SystemClock
from trainyard_trainer.report.gateway_client import GatewayClient, PostError, create_sender
from trainyard_trainer.report.run_log import RunLog

pytestmark = pytest.mark.api
JOBS, CHANGING, ROUNDS = 200, 20, 4
INTERVAL, RATE = 10.0, 20
"""Limits of the gateway: seconds between two writes of one job, writes per second over all jobs."""
MEMORY = 256 * 1024
"""Peak memory in KiB: half of the limit in the chart. 70 MB at the start, 0.45 MB per open connection."""
CLOCK = SystemClock()


@dataclass(frozen=True)
class Write:
    """One status patch, from the audit log."""

    job: str
    at: float
    code: int


class Trainer:
    """The reporter of a trainer, in threads of this process."""

    def __init__(self, gateway: Gateway, job: Job, pod: Pod, folder: Path, run_log: RunLog) -> None:
        token = folder / job.name
        token.write_text(pod.token)
        url = gateway.url(progress_path(job.namespace, job.name))
        self._post = create_sender(Intake(url=url, token_file=str(token), ca_file=str(gateway.ca)))
        self._client = GatewayClient(send=self._send, clock=CLOCK, run_log=run_log)
        self._client.start()
        self.job, self.accepted, self.first_accepted_at = job, -1, 0.0

    def report(self, sequence: int, stage: Stage) -> None:
        progress = Progress(stage=stage, step=10 * sequence, total_steps=100, updated_at=CLOCK.now())
        report = Report(sequence=sequence, owner_epoch=1, progress=progress, metrics={"loss": 1 / sequence})
        self._client.submit(report, urgent=sequence == 1)

    def close(self) -> None:
        self._client.close()

    def _send(self, body: bytes) -> PostError | None:
        problem = self._post(body)
        if problem is None:
            self.accepted = json.loads(body)["sequence"]
            self.first_accepted_at = self.first_accepted_at or time.time()
        return problem


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with control_plane(f"test-gateway-load-{os.getpid()}") as kubernetes:
        yield kubernetes


def make_job(kubernetes: Kubernetes, number: int) -> tuple[Job, Pod]:
    """Create a running job with the status of an operator and an earlier gateway."""
    job = kubernetes.job(f"load-{number:03}")
    pod = job.pod()
    job.record(pod, phase="Running", progress={"stage": "Training", "step": 1})
    return job, pod


def status_writes(kubernetes: Kubernetes) -> list[Write]:
    """Return the gateway's status patches in order."""
    return sorted(
        (write_of(entry) for entry in kubernetes.audit() if is_status_write(entry)), key=lambda write: write.at
    )


def is_status_write(entry: dict[str, Any]) -> bool:
    made = (entry["verb"], entry["stage"], entry["user"]["username"])
    return made == ("patch", "ResponseComplete", f"system:serviceaccount:{SYSTEM}:trainyard-gateway")


def write_of(entry: dict[str, Any]) -> Write:
    at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
    return Write(entry["objectRef"]["name"], at, entry["responseStatus"]["code"])


def peak_memory(gateway: Gateway) -> int:
    """Return the peak memory of the process in KiB."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def overtaking(trainer: Trainer, writes: list[Write], changing: set[str]) -> list[Write]:
    """Return the writes without a stage change between the acceptance of the trainer's stage change and its write."""
    own = next(write.at for write in writes if write.job == trainer.job.name)
    between = [write for write in writes if trainer.first_accepted_at < write.at < own]
    return [write for write in between if write.job not in changing]


def test_limits_hold_for_200_trainers(kubernetes: Kubernetes, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: make_job(kubernetes, number), range(JOBS)))
    gateway = Gateway(kubernetes, tmp_path).wait_until_ready()
    run_log = RunLog(tmp_path / "log", CLOCK)
    trainers = [Trainer(gateway, job, pod, tmp_path, run_log) for job, pod in made]
    changing = trainers[-CHANGING:]
    began = time.time()
    try:
        for sequence in range(1, ROUNDS + 1):
            for trainer in trainers:
                trainer.report(sequence, Stage.SAVING if trainer in changing else Stage.TRAINING)
            until(partial(all_accepted, trainers, sequence))
        until(lambda: last_steps(kubernetes) == {trainer.job.name: 10 * ROUNDS for trainer in trainers})
        writes = status_writes(kubernetes)
        check_limits(writes, began)
        check_order(writes, changing)
        assert peak_memory(gateway) < MEMORY
        check_counts(gateway, writes)
    finally:
        for trainer in trainers:
            trainer.close()
        assert gateway.stop() == 0
    assert '"level": "ERROR"' not in gateway.log_text()


def all_accepted(trainers: list[Trainer], sequence: int) -> bool:
    return all(trainer.accepted == sequence for trainer in trainers)


def last_steps(kubernetes: Kubernetes) -> dict[str, int]:
    items = kubernetes.client.get(f"/apis/trainyard.dev/v1alpha1/namespaces/{NAMESPACE}/trainingjobs")["items"]
    return {item["metadata"]["name"]: item["status"]["progress"]["step"] for item in items}


def check_limits(writes: list[Write], began: float) -> None:
    """Check that the number of writes never exceeds what the limits allow from the start until that time.

    A busy process delays writes, so that several arrive within one second; the rate of one second is not checked.
    """
    assert exceeding(RATE, began, [write.at for write in writes]) == []
    times = defaultdict(list)
    for write in writes:
        times[write.job].append(write.at)
    assert len(times) == JOBS
    assert {job: early for job, each in times.items() if (early := exceeding(1 / INTERVAL, began, each))} == {}


def exceeding(rate: float, began: float, moments: list[float]) -> list[float]:
    """Return the moments, in seconds from the start, at which more writes than `rate` per second had arrived."""
    return [at - began for number, at in enumerate(moments) if number > rate * (at - began)]


def check_order(writes: list[Write], changing: list[Trainer]) -> None:
    """Check that stage changes, which were reported last, were written before the updates that waited."""
    names = {trainer.job.name for trainer in changing}
    for trainer in changing:
        assert len(overtaking(trainer, writes, names)) <= RATE, trainer.job.name  # writes of one second are in flight
    last_change = max(next(write.at for write in writes if write.job == name) for name in names)
    waited = {write.job for write in writes if write.at > last_change} - names
    assert len(waited) > JOBS / 4


def check_counts(gateway: Gateway, writes: list[Write]) -> None:
    """Check the metrics against the audit log."""
    good = sum(write.code == 200 for write in writes)
    assert gateway.metric("trainyard_gateway_status_writes_total", outcome="written") == good == len(writes)
    accepted = gateway.metric("trainyard_gateway_reports_total", body="trainyard", result="Accepted")
    assert accepted >= JOBS * ROUNDS
    assert gateway.metric("trainyard_gateway_jobs") == JOBS
