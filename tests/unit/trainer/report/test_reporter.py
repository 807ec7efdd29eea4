import io
import json
from pathlib import Path

import pytest

from tests.unit.trainer.staging import make_staging
from trainyard_crds.report import CheckpointStatus, Report, ResolvedModel, Stage
from trainyard_trainer.errors import DataError, StopRequested
from trainyard_trainer.report.console import JsonLines
from trainyard_trainer.report.metrics_log import MetricsLog
from trainyard_trainer.report.reporter import Reporter, newest_and_best
from trainyard_trainer.report.run_log import RunLog
from trainyard_trainer.report.startup import StartupTimer

MODEL = ResolvedModel(source="hf://org/name", revision="abc")


class ManualClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> str:
        return "2026-01-02T03:04:05Z"


class RecordingClient:
    def __init__(self) -> None:
        self.submitted: list[tuple[Report, bool]] = []

    def submit(self, report: Report, *, urgent: bool = False) -> None:
        self.submitted.append((Report.model_validate(report.to_json()), urgent))

    def close(self) -> None:
        pass

    @property
    def last(self) -> Report:
        return self.submitted[-1][0]


def started_metrics_log(directory: Path) -> MetricsLog:
    metrics_log = MetricsLog(directory / "metrics.jsonl", make_staging(directory))
    metrics_log.begin(0)
    return metrics_log


class Parts:
    """A reporter and its collaborators."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.stdout = io.StringIO()
        self.client = RecordingClient()
        self.reporter = Reporter(
            clock=self.clock,
            console=JsonLines(self.stdout),
            run_log=RunLog(directory / "log.jsonl", self.clock),
            metrics_log=started_metrics_log(directory),
            client=self.client,  # type: ignore[arg-type] # the part of GatewayClient that the reporter uses
            gpus=list,
            owner_epoch=4,
            startup=StartupTimer(self.clock.monotonic() - 5),
        )

    def begin(self) -> None:
        self.reporter.begin(
            step=0, total_steps=20, epoch=0, items=0, unit="tokens", model=MODEL, metrics={"packing": 0.9}
        )


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def checkpoint(step: int, *, best: bool = False) -> CheckpointStatus:
    return CheckpointStatus(name=f"step-{step}-e1", step=step, bytes=1, digest="sha256:0", best=best, created_at="t")


def test_report_is_complete_and_numbered(parts: Parts) -> None:
    parts.reporter.stage(Stage.TRAINING)
    parts.begin()
    parts.clock.seconds = 10
    parts.reporter.step_done(step=5, epoch=0.25, items=500)
    parts.reporter.metrics({"loss": 1.5})
    parts.reporter.checkpoints([checkpoint(5, best=True)])
    report = parts.client.last
    assert [one.sequence for one, _ in parts.client.submitted] == list(range(1, len(parts.client.submitted) + 1))
    assert (report.owner_epoch, report.model) == (4, MODEL)
    assert report.metrics == {"packing": 0.9, "loss": 1.5}
    assert [one.name for one in report.checkpoints] == ["step-5-e1"]
    progress = report.progress
    assert (progress.stage, progress.step, progress.total_steps, progress.percent) == (Stage.TRAINING, 5, 20, 25.0)
    assert (progress.steps_per_second, progress.tokens_per_second, progress.remaining_seconds) == (0.5, 50.0, 30)


def test_change_of_stage_is_reported_once_and_urgently(parts: Parts) -> None:
    parts.reporter.stage(Stage.LOADING_MODEL)
    parts.reporter.stage(Stage.LOADING_MODEL)
    assert [(one.progress.stage, urgent) for one, urgent in parts.client.submitted] == [(Stage.LOADING_MODEL, True)]


def test_steps_are_reported_every_two_seconds(parts: Parts) -> None:
    parts.begin()
    parts.client.submitted.clear()
    for step in range(1, 11):
        parts.clock.seconds += 0.5
        parts.reporter.step_done(step=step, epoch=0, items=step)
    assert [one.progress.step for one, _ in parts.client.submitted] == [4, 8]


def test_console_line(parts: Parts) -> None:
    parts.begin()
    parts.clock.seconds = 10
    parts.reporter.step_done(step=5, epoch=0.25, items=500)
    parts.reporter.metrics({"loss": 1.5, "learningRate": 1e-4})
    line = json.loads(parts.stdout.getvalue())
    assert line == {
        "step": 5,
        "totalSteps": 20,
        "epoch": 0.25,
        "loss": 1.5,
        "learningRate": 0.0001,
        "tokensPerSecond": 50.0,
        "eta": "30s",
    }


def test_non_finite_metrics_are_omitted(parts: Parts) -> None:
    parts.begin()
    parts.reporter.metrics({"loss": 1.0, "accuracy": float("nan")})
    assert parts.client.last.metrics == {"packing": 0.9, "loss": 1.0}


def test_warning_is_logged_once_and_kept_in_every_report(parts: Parts) -> None:
    parts.reporter.warn("GracePeriodTooShort", "x" * 600)
    parts.reporter.warn("GracePeriodTooShort", "again")
    parts.reporter.stage(Stage.SAVING)
    parts.reporter.close()
    assert parts.client.last.warnings == {"GracePeriodTooShort": "x" * 512}
    assert len((parts.directory / "log.jsonl").read_text().splitlines()) == 1


def test_first_step_logs_the_startup_breakdown(parts: Parts) -> None:
    parts.begin()
    parts.clock.seconds = 3
    parts.reporter.stage(Stage.TRAINING)
    parts.clock.seconds = 4
    for step in (1, 2):
        parts.reporter.step_done(step=step, epoch=0, items=1)
    (line,) = (parts.directory / "log.jsonl").read_text().splitlines()
    expected = "The first step finished 9.00 s after the process start: imports 8.00 s, first step 1.00 s."
    assert (json.loads(line)["type"], json.loads(line)["message"]) == ("Started", expected)


def test_termination_has_the_progress_of_the_run(parts: Parts) -> None:
    parts.begin()
    parts.clock.seconds = 1
    parts.reporter.step_done(step=5, epoch=0.25, items=500)
    parts.reporter.checkpoints([checkpoint(5)])
    failed, stopped = parts.reporter.ended(DataError("Bad.")), parts.reporter.ended(StopRequested("Stopped."))
    assert (failed.step, failed.total_steps, failed.model, failed.message) == (5, 20, MODEL, "Bad.")
    assert stopped.message == "Stopped. The next start resumes from step-5-e1."


def test_failure_before_loading_reports_the_step_of_the_checkpoint(parts: Parts) -> None:
    parts.reporter.restore(step=7, epoch=0.5, metrics={"loss": 1.0})
    failed = parts.reporter.ended(DataError("Bad."))
    assert (failed.step, failed.epoch, failed.metrics) == (7, 0.5, {"loss": 1.0})


def test_report_has_at_most_twenty_checkpoints_with_the_best() -> None:
    statuses = [checkpoint(step, best=step == 1) for step in range(1, 24)]
    assert [one.step for one in newest_and_best(statuses)] == [1, *range(5, 24)]
    assert newest_and_best(statuses[:3]) == statuses[:3]
