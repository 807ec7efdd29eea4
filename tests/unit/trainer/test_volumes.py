"""A training on a real file system that fills up, turns read-only or loses blocks."""

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
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    assert train_toy(run_config(directory), ToyTask()).exit_code == 0
    return directory


def start(run: Path) -> Termination:
    """A start of the run as the command line sees it."""
    try:
        return train_toy(run_config(run), ToyTask())
    except TrainerError as error:
        return termination_of(error)


def at_save(number: int, action: Callable[[], object]) -> ToyTask:
    def strike(call: int) -> None:
        if call == number:
            action()

    return ToyTask(hooks={"save_weights": strike})


def assert_storage_failed(termination: Termination, run: Path, sentence: str) -> None:
    assert (termination.exit_code, termination.reason) == (73, "StorageFailed")
    assert termination.message == f"The volume of {run} {sentence}"
    assert termination.advice


def assert_goes_on(run: Path, whole: Path) -> None:
    """From its last checkpoint to the outcome of a run that nothing interrupted."""
    assert start(run).exit_code == 0
    assert "Resumed from step-3-e1" in (run / "log.jsonl").read_text()
    assert exported(run) == exported(whole)
    assert metric_lines(run) == metric_lines(whole)


def test_a_volume_that_fills_up_keeps_its_checkpoint(volume: Volume, whole: Path) -> None:
    run, ballast = volume.mount_point / "run", []
    termination = train_toy(run_config(run), at_save(2, lambda: ballast.append(volume.fill())))
    assert_storage_failed(termination, run, "is full.")
    assert "storage.size" in termination.advice
    assert resumable(run) == ("step-3-e1", 3)
    assert_storage_failed(start(run), run, "is full.")
    assert resumable(run) == ("step-3-e1", 3)
    ballast[0].unlink()
    assert_goes_on(run, whole)


def test_a_volume_that_turns_read_only_keeps_its_checkpoint(volume: Volume, whole: Path) -> None:
    run = volume.mount_point / "run"
    assert_storage_failed(train_toy(run_config(run), at_save(2, volume.fail)), run, "is read-only.")
    assert_storage_failed(start(run), run, "is read-only.")
    assert resumable(run) == ("step-3-e1", 3)
    volume.unmount()
    volume.repair()
    volume.mount("ro")
    assert_storage_failed(start(run), run, "is read-only.")
    volume.unmount()
    volume.mount()
    assert_goes_on(run, whole)


def test_a_volume_that_dies_keeps_its_checkpoint(volume: Volume, whole: Path) -> None:
    run = volume.mount_point / "run"
    assert_storage_failed(train_toy(run_config(run), at_save(2, volume.die)), run, "failed with an I/O error.")
    assert_storage_failed(start(run), run, "failed with an I/O error.")
    volume.unmount()
    volume.mount()
    assert_goes_on(run, whole)


def test_a_checkpoint_that_cannot_be_read_is_not_given_up(volume: Volume, whole: Path) -> None:
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
    assert_goes_on(run, whole)
