"""Reporter of a replica: implements the interface and reports nothing."""

from __future__ import annotations

import os
from pathlib import Path

from trainyard_trainer.clock import Clock
from trainyard_trainer.report.gpu import GpuSampler
from trainyard_trainer.report.reporter import Reporter
from trainyard_trainer.report.run_log import RunLog
from trainyard_trainer.report.startup import StartupTimer


class NullMetrics:
    """Writes no metrics."""

    length = 0

    def begin(self, length: int) -> None:
        """Do nothing."""

    def append(self, *, step: int, time: str, metrics: dict[str, float]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class NullConsole:
    """Shows no output."""

    def begin(self, *, step: int, total_steps: int) -> None:
        """Do nothing."""

    def step(self, step: int) -> None:
        """Do nothing."""

    def metrics(self, values: dict[str, float | int | str]) -> None:
        """Do nothing."""

    def message(self, level: str, kind: str, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def create_null_reporter(clock: Clock, *, gpus: GpuSampler, owner_epoch: int, startup: StartupTimer) -> Reporter:
    """Return a reporter without output; it still samples GPUs, which the main process reports."""
    return Reporter(
        clock=clock,
        console=NullConsole(),
        run_log=RunLog(Path(os.devnull), clock),
        metrics_log=NullMetrics(),
        client=None,
        gpus=gpus,
        owner_epoch=owner_epoch,
        startup=startup,
    )
