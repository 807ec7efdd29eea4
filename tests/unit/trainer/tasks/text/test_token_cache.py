"""The token cache is removed when its run has finished, not before."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.trainer.staging import make_staging
from tests.unit.trainer.toy import ToyTask, run_config, train_toy
from trainyard_trainer import bootstrap
from trainyard_trainer.errors import SupersededError
from trainyard_trainer.stop import StopFlag


def fill(run_directory: Path) -> Callable[[int], None]:
    def write(_call: int) -> None:
        (run_directory / "cache").mkdir(exist_ok=True)
        (run_directory / "cache/tokens").write_text("tokens")

    return write


def leftovers(run_directory: Path) -> list[Path]:
    return [*run_directory.rglob(".tmp-*"), *run_directory.rglob("removed-*")]


def test_finished_run_removes_its_cache(tmp_path: Path) -> None:
    stop = StopFlag()
    hooks = {"load": fill(tmp_path), "evaluate": lambda call: stop.request() if call == 2 else None}
    assert train_toy(run_config(tmp_path), ToyTask(hooks=hooks), stop).reason == "Interrupted"
    assert (tmp_path / "cache/tokens").exists()
    assert train_toy(run_config(tmp_path), ToyTask()).exit_code == 0
    assert not (tmp_path / "cache").exists()
    assert leftovers(tmp_path) == []


def test_cache_removal_error_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "cache":
            raise OSError(errno.EIO, "no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert train_toy(run_config(tmp_path), ToyTask(hooks={"load": fill(tmp_path)})).exit_code == 0
    assert (tmp_path / "cache/tokens").exists()


def test_superseded_run_keeps_the_cache(tmp_path: Path) -> None:
    stale = make_staging(tmp_path)
    fill(tmp_path)(1)
    make_staging(tmp_path)
    with pytest.raises(SupersededError):
        stale.discard(tmp_path / "cache")
    bootstrap.drop_cache(tmp_path, stale)
    assert (tmp_path / "cache/tokens").exists()
