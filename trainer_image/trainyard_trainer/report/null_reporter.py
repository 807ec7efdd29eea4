"""What a process of a group reports that is not the first: nothing, by the same calls."""

from __future__ import annotations

import os
from pathlib import Path

from trainyard_trainer.clock import Clock
from trainyard_trainer.report.gpu import GpuSampler
from trainyard_trainer.report.reporter import Reporter
from trainyard_trainer.report.run_log import RunLog
from trainyard_trainer.report.startup import StartupTimer


class NullMetrics:
    """Has the methods of `MetricsLog`."""

    length = 0

    def begin(self, length: int) -> None:
        """Nothing is written."""

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Nothing is written."""

    def sync(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is open."""


class NullConsole:
    """Shows nothing."""

    def begin(self, *, step: int, total_steps: int) -> None:
        """Nothing is shown."""

    def step(self, step: int) -> None:
        """Nothing is shown."""

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Nothing is shown."""

    def message(self, level: str, kind: str, text: str) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing is shown."""


def create_null_reporter(clock: Clock, *, gpus: GpuSampler, owner_epoch: int, startup: StartupTimer) -> Reporter:
    """A reporter nobody hears; it samples GPUs where the first process tells of them."""
    return Reporter(
        clock=clock,
        console=NullConsole(),
        run_log=RunLog(Path(os.devnull), clock),
        metrics_log=NullMetrics(),
        poster=None,
        gpus=gpus,
        owner_epoch=owner_epoch,
        startup=startup,
    )
