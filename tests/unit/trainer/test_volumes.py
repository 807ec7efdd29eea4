"""Training on a real file system that fills up, becomes read-only or loses blocks."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.campaign.instants import every_instant
from tests.campaign.invariants import resumable
from tests.unit.trainer.toy import ToyTask, exported, metric_lines, run_config, train_toy
from tests.unit.trainer.volume import Volume
from trainyard_crds.report import Termination
from trainyard_trainer.errors import TrainerError
from trainyard_trainer.report.termination import termination_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root; CI is root")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    try:
        volume.mount()
        yield volume
    finally:
        volume.close()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted")
    assert train_toy(run_config(directory), ToyTask()).exit_code == 0
    return directory


def start(run: Path) -> Termination:
    """Run one attempt as the command line does."""
    try:
        return train_toy(run_config(run), ToyTask())
    except TrainerError as error:
        return termination_of(error)


def at_save(number: int, action: Callable[[], object]) -> ToyTask:
    def run_action(call: int) -> None:
        if call == number:
            action()

    return ToyTask(hooks={"save_weights": run_action})


def assert_storage_failed(termination: Termination, run: Path, sentence: str) -> None:
    assert (termination.exit_code, termination.reason) == (73, "StorageFailed")
    assert termination.message == f"The volume of {run} {sentence}"
    assert termination.advice


def assert_resumes(run: Path, uninterrupted: Path) -> None:
    """Assert that the run resumes from its last checkpoint to the result of an uninterrupted run."""
    assert start(run).exit_code == 0
    assert "Resumed from step-3-e1" in (run / "log.jsonl").read_text()
    assert exported(run) == exported(uninterrupted)
    assert metric_lines(run) == metric_lines(uninterrupted)


def test_full_volume_keeps_its_checkpoint(volume: Volume, uninterrupted: Path) -> None:
    run, ballast = volume.mount_point / "run", []
    termination = train_toy(run_config(run), at_save(2, lambda: ballast.append(volume.fill())))
    assert_storage_failed(termination, run, "is full.")
    assert "spec.resumeFrom" in termination.advice
    assert resumable(run) == ("step-3-e1", 3)
    assert_storage_failed(start(run), run, "is full.")
    assert resumable(run) == ("step-3-e1", 3)
    ballast[0].unlink()
    assert_resumes(run, uninterrupted)


def test_volume_that_becomes_read_only_keeps_its_checkpoint(volume: Volume, uninterrupted: Path) -> None:
    run = volume.mount_point / "run"
    assert_storage_failed(train_toy(run_config(run), at_save(2, volume.remount_read_only)), run, "is read-only.")
    assert_storage_failed(start(run), run, "is read-only.")
    assert resumable(run) == ("step-3-e1", 3)
    volume.unmount()
    volume.repair()
    volume.mount("ro")
    assert_storage_failed(start(run), run, "is read-only.")
    volume.unmount()
    volume.mount()
    assert_resumes(run, uninterrupted)


def test_failing_volume_keeps_its_checkpoint(volume: Volume, uninterrupted: Path) -> None:
    run = volume.mount_point / "run"
    assert_storage_failed(train_toy(run_config(run), at_save(2, volume.fail_io)), run, "failed with an I/O error.")
    assert_storage_failed(start(run), run, "failed with an I/O error.")
    volume.unmount()
    volume.mount()
    assert_resumes(run, uninterrupted)


def test_unreadable_checkpoint_is_not_discarded(volume: Volume, uninterrupted: Path) -> None:
    run = volume.mount_point / "run"
    copies: list[Path] = []
    assert train_toy(run_config(run), at_save(2, volume.fill)).exit_code == 73
    (volume.mount_point / "ballast").unlink()
    volume.unmount()
    volume.mount()

    def lose_weights(instant: str) -> None:
        if instant == "after Files.create" and not copies:
            copies.append(volume.lose_blocks_of(run / "checkpoints/step-3-e1/weights/model.safetensors"))

    with every_instant(lose_weights):
        assert_storage_failed(start(run), run, "failed with an I/O error.")
    volume.unmount()
    volume.restore(copies[0])
    volume.mount()
    assert_resumes(run, uninterrupted)
