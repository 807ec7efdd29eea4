"""Reports the state of the run to the run log, the metrics log, the console and the gateway."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trainyard_crds.exitcodes import EXIT_CODES, ExitCode
from trainyard_crds.printer_text import eta_text
from trainyard_crds.report import (
    CheckpointStatus,
    ExportStatus,
    Gpu,
    InvalidRows,
    MemoryEstimate,
    Outcome,
    Progress,
    Report,
    ResolvedModel,
    Stage,
    Termination,
)
from trainyard_trainer.clock import Clock
from trainyard_trainer.errors import GpuMemoryError, TrainerError
from trainyard_trainer.report.console import Console
from trainyard_trainer.report.gateway_client import GatewayClient
from trainyard_trainer.report.gpu import GpuSampler
from trainyard_trainer.report.metrics_log import Metrics
from trainyard_trainer.report.progress import Pace, percent_done
from trainyard_trainer.report.run_log import RunLog
from trainyard_trainer.report.startup import StartupTimer
from trainyard_trainer.report.termination import termination_of

_MAX_CHECKPOINTS = 20
_WARNING_LIMIT = 512
_MESSAGE_LIMIT = 1024
_REPORT_SECONDS = 2.0
_TOKENS = "tokens"


class Reporter:
    """Keeps the state of the run and publishes every change of it."""

    def __init__(
        self,
        *,
        clock: Clock,
        console: Console,
        run_log: RunLog,
        metrics_log: Metrics,
        client: GatewayClient | None,
        gpus: GpuSampler,
        owner_epoch: int,
        startup: StartupTimer,
    ) -> None:
        self._clock = clock
        self._startup = startup
        self._console = console
        self._run_log = run_log
        self.metrics_log = metrics_log
        self._client = client
        self._sample_gpus = gpus
        self._owner_epoch = owner_epoch
        self._sequence = 0
        self._reported_at = float("-inf")
        self._progress = Progress()
        self._pace: Pace | None = None
        self._unit = _TOKENS
        self._metrics: dict[str, float] = {}
        self._speed: dict[str, float] = {}
        self._gpus: list[Gpu] = []
        self._checkpoints: Sequence[CheckpointStatus] = ()
        self._beginning = "the beginning"
        self._model: ResolvedModel | None = None
        self._warnings: dict[str, str] = {}
        self._early_end = ""
        self._memory: MemoryEstimate | None = None
        self._memory_advice = ""
        self._invalid_rows: InvalidRows | None = None

    def stage(self, stage: Stage) -> None:
        """Enter a stage and report it at once."""
        if stage is not self._progress.stage:
            self._startup.stage(stage, self._clock.monotonic())
            self._update(stage=stage, stage_percent=None)
            self._submit_report(urgent=True)

    def stage_progress(self, percent: float) -> None:
        """Set the progress of the current stage, 0 to 100."""
        self._update(stage_percent=round(percent, 1))
        if self._clock.monotonic() - self._reported_at >= _REPORT_SECONDS:
            self._submit_report()

    def log(self, kind: str, message: str, level: str = "info") -> None:
        """Write an event to the run log and the console."""
        self.log_to_file(kind, message, level)
        self._console.message(level, kind, message)

    def log_to_file(self, kind: str, message: str, level: str = "info") -> None:
        """Write an event to the run log only."""
        self._run_log.append(level=level, kind=kind, message=message)

    def warn(self, reason: str, message: str) -> None:
        """Log a warning once per reason and include it in every report."""
        if reason not in self._warnings:
            self._warnings[reason] = message[:_WARNING_LIMIT]
            self.log(reason, message, "warning")

    def restore(self, *, step: int, epoch: float, metrics: dict[str, float]) -> None:
        """Set the state of the checkpoint to resume from, before model and data are loaded."""
        self._metrics = _finite(metrics)
        self._update(step=step, epoch=epoch)

    def begins_at(self, name: str) -> None:
        """Set the checkpoint of another run that this run begins at, for messages."""
        self._beginning = name

    def begin(
        self,
        *,
        step: int,
        total_steps: int,
        epoch: float,
        items: int,
        unit: str,
        model: ResolvedModel,
        metrics: dict[str, float],
    ) -> None:
        """Report that model and data are loaded and training starts or resumes at a step."""
        self._model = model
        self._unit = unit
        self._metrics = _finite(metrics)
        self._pace = Pace(time=self._clock.monotonic(), step=step, items=items)
        self._update(step=step, total_steps=total_steps, epoch=epoch, percent=percent_done(step, total_steps))
        self._console.begin(step=step, total_steps=total_steps)
        self._submit_report(urgent=True)

    def step_done(self, *, step: int, epoch: float, items: int) -> None:
        """Record a finished optimizer step.

        Args:
            step: Number of finished optimizer steps.
            epoch: Number of finished passes over the data.
            items: Items trained on since the start of the run.
        """
        assert self._pace is not None
        assert self._progress.total_steps is not None
        total = self._progress.total_steps
        self._pace.add(time=self._clock.monotonic(), step=step, items=items)
        self._update(
            step=step,
            epoch=epoch,
            percent=percent_done(step, total),
            remaining_seconds=self._pace.remaining_seconds(total - step),
            steps_per_second=self._pace.steps_per_second,
            tokens_per_second=self._pace.items_per_second if self._unit == _TOKENS else None,
        )
        self._console.step(step)
        if started := self._startup.first_step_done(self._clock.monotonic()):
            self.log_to_file("Started", started)
        if self._clock.monotonic() - self._reported_at >= _REPORT_SECONDS:
            self._submit_report()

    def metrics(self, values: dict[str, float], speed: dict[str, float] | None = None) -> None:
        """Record metrics of the current step.

        Args:
            values: Metrics of the model, kept in the run and its checkpoints.
            speed: Speed of this attempt (`dataWait`, `mfu`), reported while it lasts.
        """
        finite = _finite(values)
        self._metrics.update(finite)
        self._speed = speed if speed is not None else self._speed
        self._gpus = self._sample_gpus()
        line = {**finite, **(speed or {}), **self._throughput()}
        self.metrics_log.append(step=self._progress.step, time=self._clock.now(), metrics=line)
        self._console.metrics(self._console_line(finite))
        self._submit_report()

    def checkpoints(self, statuses: Sequence[CheckpointStatus]) -> None:
        """Report the complete list of valid checkpoints."""
        self._checkpoints = statuses
        self._submit_report()

    def ended(self, error: TrainerError) -> Termination:
        """Return the termination of a run that failed or was interrupted."""
        termination = termination_of(error).model_copy(update=self._snapshot())
        if isinstance(error, GpuMemoryError) and self._memory_advice:
            termination = termination.model_copy(update={"advice": self._memory_advice[:_WARNING_LIMIT]})
        if termination.outcome is not Outcome.INTERRUPTED:
            return termination
        saved = self._checkpoints[-1].name if self._checkpoints else self._beginning
        message = f"{termination.message} The next start resumes from {saved}."
        return termination.model_copy(update={"message": message})

    def memory(self, estimate: MemoryEstimate, advice: str) -> None:
        """Report the memory estimate of one device and warn if the device has less memory.

        Args:
            estimate: Predicted memory of one device.
            advice: How to reduce it.
        """
        self._memory, self._memory_advice = estimate, advice
        if estimate.device_bytes is not None and estimate.bytes > estimate.device_bytes:
            text = (
                f"The run is predicted to need {_gib(estimate.bytes)}; {_gib(estimate.device_bytes)} are free for it."
            )
            self.warn("MemoryTooSmall", f"{text} {advice}")
        self._submit_report(urgent=True)

    def invalid_rows(self, rows: InvalidRows) -> None:
        """Report the rows that are skipped because they are invalid."""
        self._invalid_rows = rows
        self._submit_report()

    def stopped_early(self, reason: str) -> None:
        """Record why the run ends before its last step, for the log and the termination.

        Args:
            reason: The evaluations without an improvement, as part of a sentence.
        """
        self._early_end = f" of {self._progress.total_steps}: {reason} (evaluation.earlyStopping)"
        self.log("StoppedEarly", f"Stopped after step {self._progress.step}{self._early_end}.")

    def finished(self, exports: list[ExportStatus]) -> Termination:
        """Return the termination of a finished run."""
        exported = ", ".join(f"{export.format} in {export.uri}" for export in exports)
        return Termination(
            outcome=Outcome.FINISHED,
            exit_code=0,
            reason=EXIT_CODES[ExitCode.FINISHED].reason,
            message=f"Trained {self._progress.step} steps{self._early_end}; {exported}."[:_MESSAGE_LIMIT],
            exports=exports,
        ).model_copy(update=self._snapshot())

    def close(self) -> None:
        """Flush the last report within seconds and close all outputs."""
        self._console.close()
        if self._client is not None:
            self._submit_report(urgent=True)
            self._client.close()
        self.metrics_log.close()
        self._run_log.close()

    def _snapshot(self) -> dict[str, Any]:
        return {
            "step": self._progress.step,
            "total_steps": self._progress.total_steps,
            "epoch": self._progress.epoch,
            "metrics": dict(self._metrics),
            "model": self._model,
            "memory_estimate": self._memory,
            "invalid_rows": self._invalid_rows,
            "checkpoints": list(self._checkpoints),
        }

    def _update(self, **fields: Any) -> None:
        self._progress = self._progress.model_copy(update=fields)
        self._run_log.step = self._progress.step

    def _submit_report(self, *, urgent: bool = False) -> None:
        if self._client is None:
            return
        self._reported_at = self._clock.monotonic()
        self._sequence += 1
        report = Report(
            sequence=self._sequence,
            owner_epoch=self._owner_epoch,
            progress=self._progress.model_copy(update={"updated_at": self._clock.now()}),
            metrics={**self._metrics, **self._speed},
            gpus=self._gpus,
            checkpoints=newest_and_best(self._checkpoints),
            model=self._model,
            memory_estimate=self._memory,
            invalid_rows=self._invalid_rows,
            warnings=dict(self._warnings),
        )
        self._client.submit(report, urgent=urgent)

    def _throughput(self) -> dict[str, float]:
        rate = None if self._pace is None else self._pace.items_per_second
        return {} if rate is None else {f"{self._unit}PerSecond": rate}

    def _console_line(self, metrics: dict[str, float]) -> dict[str, float | int | str]:
        progress = self._progress
        line: dict[str, float | int | str] = {"step": progress.step, "totalSteps": progress.total_steps or 0}
        line |= {"epoch": round(progress.epoch or 0.0, 2), **metrics}
        line |= {name: round(rate, 1) for name, rate in self._throughput().items()}
        if progress.remaining_seconds is not None:
            line["eta"] = eta_text(progress.remaining_seconds)
        return line


def newest_and_best(statuses: Sequence[CheckpointStatus]) -> list[CheckpointStatus]:
    """Return the newest checkpoints up to the limit of a report, always with the best, oldest first."""
    excess = max(0, len(statuses) - _MAX_CHECKPOINTS)
    omitted = [one for one in statuses if not one.best][:excess]
    return [one for one in statuses if one not in omitted]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
