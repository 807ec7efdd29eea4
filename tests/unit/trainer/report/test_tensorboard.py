from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.unit.trainer.staging import make_staging
from tests.unit.trainer.toy import event_lines
from trainyard_trainer.errors import SupersededError
from trainyard_trainer.report.metrics_log import MetricsLog

NOW = "2026-01-02T03:04:05.250Z"


def start(directory: Path, length: int = 0) -> MetricsLog:
    log = MetricsLog(directory / "metrics.jsonl", make_staging(directory))
    log.begin(length)
    return log


def add(log: MetricsLog, step: int, loss: float) -> None:
    log.append(step=step, time=NOW, metrics={"loss": loss, "learningRate": 0.5})


def losses(reader: EventAccumulator) -> list[tuple[int, float]]:
    reader.Reload()
    return [(scalar.step, scalar.value) for scalar in reader.Scalars("loss")]


def reader_of(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory / "tensorboard"))


def test_tensorboard_reads_steps_times_and_values(tmp_path: Path) -> None:
    log = start(tmp_path)
    add(log, 1, 1.5)
    log.append(step=5, time=NOW, metrics={"evalLoss": 0.25})
    reader = reader_of(tmp_path)
    assert losses(reader) == [(1, 1.5)]
    assert reader.Tags()["scalars"] == ["loss", "learningRate", "evalLoss"]
    [scalar] = reader.Scalars("evalLoss")
    assert (scalar.step, scalar.value, scalar.wall_time) == (5, 0.25, 1767323045.25)
    log.close()


def test_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    first = start(tmp_path)
    add(first, 1, 1.0)
    length = first.length
    add(first, 2, 9.0)
    watching = reader_of(tmp_path)
    assert losses(watching) == [(1, 1.0), (2, 9.0)]
    second = start(tmp_path, length)
    add(second, 2, 0.5)
    add(first, 3, 7.0)
    assert losses(reader_of(tmp_path)) == [(1, 1.0), (2, 0.5)]
    assert losses(watching) == [(1, 1.0), (2, 0.5)]
    older, newest = sorted((tmp_path / "tensorboard").iterdir())
    assert newest.name == "events.out.tfevents.0000000002.trainyard"
    assert older.stat().st_size < 50


def test_restart_from_the_beginning_has_no_older_events(tmp_path: Path) -> None:
    add(start(tmp_path), 1, 1.0)
    start(tmp_path)
    assert event_lines(tmp_path) == []


def test_stale_trainer_publishes_no_event_file(tmp_path: Path) -> None:
    stale = start(tmp_path)
    start(tmp_path)
    before = sorted((tmp_path / "tensorboard").iterdir())
    with pytest.raises(SupersededError):
        stale._events.begin([])
    assert sorted((tmp_path / "tensorboard").iterdir()) == before


def test_corrupt_line_is_skipped(tmp_path: Path) -> None:
    log = start(tmp_path)
    add(log, 1, 1.0)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(bytes(20) + b"\n")
    add(log, 2, 0.5)
    start(tmp_path, (tmp_path / "metrics.jsonl").stat().st_size)
    assert event_lines(tmp_path) == [
        (1, "loss", 1.0),
        (1, "learningRate", 0.5),
        (2, "loss", 0.5),
        (2, "learningRate", 0.5),
    ]
