"""Resume with a corrupt newest checkpoint, and in the directory of another run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.invariants import resumable
from tests.unit.trainer.toy import ToyData, ToyTask, exported, metric_lines, run_config, train_toy
from trainyard_trainer.stop import StopFlag

FILES = ("manifest.json", "weights/model.safetensors", "state/tensors.safetensors", "state/state.json")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def interrupted(run: Path) -> None:
    """Make a stopped run with the checkpoints of steps 6 and 7."""
    stop = StopFlag()

    def stop_in_step_7(call: int) -> None:
        if call == 28:
            stop.request()

    assert train_toy(run_config(run), ToyTask(hooks={"loss": stop_in_step_7}), stop).exit_code == 75
    assert resumable(run) == ("step-7-e1", 7)


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.glob("checkpoints/step-*/**/*") if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted")
    assert train_toy(run_config(directory), ToyTask()).exit_code == 0
    return directory


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, cut_in_half, zero, Path.unlink], ids=lambda damage: damage.__name__)
def test_run_resumes_from_the_older_checkpoint(
    tmp_path: Path, uninterrupted: Path, damage: Callable[[Path], None], file: str
) -> None:
    interrupted(tmp_path)
    damage(tmp_path / "checkpoints/step-7-e1" / file)
    assert resumable(tmp_path) == ("step-6-e1", 6)
    assert train_toy(run_config(tmp_path), ToyTask()).exit_code == 0
    assert "Resumed from step-6-e1." in (tmp_path / "log.jsonl").read_text()
    assert exported(tmp_path) == exported(uninterrupted)
    assert metric_lines(tmp_path) == metric_lines(uninterrupted)


@pytest.mark.parametrize(
    ("blocks", "task", "sentence"),
    [
        pytest.param(
            {"optimization": {"learningRate": 0.02}},
            ToyTask(),
            "optimization.learningRate was 0.01 when this run began and is 0.02 now.",
            id="another learning rate",
        ),
        pytest.param(
            {"model": {"source": "file:///other"}},
            ToyTask(),
            'model.source was "file:///toy" when this run began and is "file:///other" now.',
            id="another model",
        ),
        pytest.param(
            {},
            ToyTask(data=ToyData(fingerprint="e" * 64)),
            "The training data is not the one this run made its first 7 steps with",
            id="another dataset",
        ),
    ],
)
def test_directory_of_another_run_is_refused_and_unchanged(
    tmp_path: Path, uninterrupted: Path, blocks: dict[str, Any], task: ToyTask, sentence: str
) -> None:
    interrupted(tmp_path)
    before = contents(tmp_path)
    termination = train_toy(run_config(tmp_path, **blocks), task)
    assert (termination.exit_code, termination.reason) == (65, "BadData")
    assert termination.message.startswith(sentence)
    assert "start a new run" in termination.advice
    assert contents(tmp_path) == before
    assert train_toy(run_config(tmp_path), ToyTask()).exit_code == 0
    assert exported(tmp_path) == exported(uninterrupted)
    assert metric_lines(tmp_path) == metric_lines(uninterrupted)
