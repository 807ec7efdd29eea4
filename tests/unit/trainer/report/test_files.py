import io
import json
import logging
from pathlib import Path

import pytest

from tests.unit.trainer.staging import make_staging
from trainyard_crds.constants import TERMINATION_LIMIT, TERMINATION_LOG_ENV
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.errors import DataError, StopRequested, SupersededError
from trainyard_trainer.report.console import JsonLines, ProgressBar, create_console
from trainyard_trainer.report.metrics_log import MetricsLog
from trainyard_trainer.report.run_log import LibraryHandler, RunLog
from trainyard_trainer.report.termination import read_result, termination_of, write_termination

NOW = "2026-01-02T03:04:05.250Z"


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def now(self) -> str:
        return "2026-01-02T03:04:05Z"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def metrics_log(directory: Path, length: int = 0) -> MetricsLog:
    """Open the metrics log as an attempt does."""
    log = MetricsLog(directory / "metrics.jsonl", make_staging(directory))
    log.begin(length)
    return log


def steps_in(directory: Path) -> list[tuple[int, float]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def test_resumed_run_rewrites_lines_after_its_checkpoint(tmp_path: Path) -> None:
    first = metrics_log(tmp_path)
    first.append(step=1, time=NOW, metrics={"loss": 1.0})
    length = first.length
    first.append(step=2, time=NOW, metrics={"loss": 9.0})
    first.close()
    second = metrics_log(tmp_path, length)
    second.append(step=2, time=NOW, metrics={"loss": 0.5})
    second.close()
    assert steps_in(tmp_path) == [(1, 1.0), (2, 0.5)]


def test_late_writes_of_a_stale_trainer_are_invisible(tmp_path: Path) -> None:
    stale = metrics_log(tmp_path)
    stale.append(step=1, time=NOW, metrics={"loss": 1.0})
    successor = metrics_log(tmp_path, stale.length)
    stale.append(step=2, time=NOW, metrics={"loss": 9.0})
    successor.append(step=2, time=NOW, metrics={"loss": 0.5})
    with pytest.raises(SupersededError):
        stale.begin(0)
    assert steps_in(tmp_path) == [(1, 1.0), (2, 0.5)]


def test_file_shorter_than_recorded_is_kept(tmp_path: Path) -> None:
    log = metrics_log(tmp_path)
    log.append(step=1, time=NOW, metrics={"loss": 1.0})
    length = log.length
    assert metrics_log(tmp_path, length + 100).length == length


def test_log_lines(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", FixedClock())
    log.step = 7
    log.append(level="info", kind="RowsDropped", message="12 of 300 rows")
    log.close()
    log.append(level="info", kind="Late", message="from a thread that still runs")
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {
        "time": "2026-01-02T03:04:05Z",
        "level": "info",
        "type": "RowsDropped",
        "step": 7,
        "message": "12 of 300 rows",
    }


def test_library_warning_is_written_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", FixedClock())
    handler = LibraryHandler(log)
    for level, message in ((logging.WARNING, "old"), (logging.WARNING, "old"), (logging.INFO, "chatter")):
        record = logging.LogRecord("library", level, "", 0, message, None, None)
        if record.levelno >= handler.level:
            handler.handle(record)
    log.close()
    [line] = (tmp_path / "log.jsonl").read_text().splitlines()
    assert (json.loads(line)["type"], json.loads(line)["message"]) == ("Library", "library: old")


def test_console_writes_json_lines_without_a_terminal() -> None:
    stream = io.StringIO()
    console = create_console(stream)
    assert isinstance(console, JsonLines)
    console.begin(step=0, total_steps=9)
    console.step(1)
    console.metrics({"step": 1, "loss": 1.23456789, "eta": "12s"})
    console.message("info", "Saved", "Saved it.")
    assert stream.getvalue().splitlines() == [
        '{"step": 1, "loss": 1.2346, "eta": "12s"}',
        '{"level": "info", "type": "Saved", "message": "Saved it."}',
    ]


def test_console_shows_a_bar_from_the_resumed_step_on_a_terminal() -> None:
    stream = Terminal()
    console = create_console(stream)
    assert isinstance(console, ProgressBar)
    console.message("warning", "Kind", "look out")
    console.begin(step=3, total_steps=9)
    console.step(4)
    console.metrics({"step": 4, "totalSteps": 9, "loss": 1.23456789})
    console.close()
    assert "warning: look out\n" in stream.getvalue()
    assert "3/9" in stream.getvalue()
    assert "4/9" in stream.getvalue()
    assert "loss=1.23" in stream.getvalue()


def test_failed_termination_has_reason_message_and_advice() -> None:
    termination = termination_of(DataError("Row 3 is empty.", "Remove it."))
    assert (termination.outcome, termination.exit_code, termination.reason) == (Outcome.FAILED, 65, "BadData")
    assert (termination.message, termination.advice) == ("Row 3 is empty.", "Remove it.")
    assert termination_of(StopRequested("Stopped.")).outcome is Outcome.INTERRUPTED


def test_long_texts_are_truncated_to_the_limits() -> None:
    termination = termination_of(DataError("x" * 5000, "y" * 5000))
    assert len(termination.message) == 1024
    assert len(termination.advice) == 512


def test_unwritable_termination_log_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_termination(termination_of(DataError("x")), {TERMINATION_LOG_ENV: str(tmp_path)})
    assert "Is a directory" in capsys.readouterr().err


def test_termination_message_is_written_to_the_configured_file(tmp_path: Path) -> None:
    target = tmp_path / "termination-log"
    write_termination(termination_of(DataError("x" * 1000, "y")), {TERMINATION_LOG_ENV: str(target)})
    assert len(target.read_bytes()) <= TERMINATION_LIMIT
    assert Termination.model_validate_json(target.read_bytes()).exit_code == 65


@pytest.mark.parametrize("content", [None, "", "{", '{"outcome": "Failed", "exitCode": 70, "reason": "InternalError"}'])
def test_only_a_finished_run_has_a_result(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    assert read_result(tmp_path) is None
