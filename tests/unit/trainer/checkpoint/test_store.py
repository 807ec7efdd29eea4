import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from tests.unit.trainer.checkpoint.support import NOW, draft, names, open_at, save, write
from trainyard_trainer.checkpoint.files import Files, storage_errors
from trainyard_trainer.checkpoint.manifest import Manifest
from trainyard_trainer.errors import ConfigurationError, StorageError, SupersededError


def forge(checkpoint: Path, old: str, new: str) -> None:
    """Replace text in a manifest and update its seal."""
    path = checkpoint / "manifest.json"
    path.write_bytes(Manifest.model_validate_json(path.read_text().replace(old, new)).to_bytes())


def test_checkpoint_has_weights_state_and_manifest(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    save(store, 3, loss=0.5)
    directory = tmp_path / "checkpoints/step-3-e1"
    files = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert files == {"manifest.json", "state/state.json", "weights/model.safetensors"}
    manifest = json.loads((directory / "manifest.json").read_text())
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert manifest["files"]["weights/model.safetensors"]["bytes"] == 7
    assert (manifest["ownerEpoch"], manifest["cursor"], manifest["createdAt"]) == (1, {"epoch": 0, "index": 3}, NOW)
    [status] = store.statuses()
    assert (status.bytes, status.uri, status.metrics) == (9, "pvc://c/run/checkpoints/step-3-e1", {"loss": 0.5})
    assert status.digest.startswith("sha256:")


def test_manifest_is_written_after_all_files_are_fsynced(tmp_path: Path) -> None:
    calls: list[str] = []

    class Recorded(Files):
        def fsync(self, path: Path) -> None:
            calls.append(path.name)
            super().fsync(path)

        def rename(self, source: Path, target: Path) -> None:
            calls.append("RENAME")
            super().rename(source, target)

    store = open_at(tmp_path, files=Recorded())
    calls.clear()
    save(store, 3)
    temporary = "step-3-e1"
    payload = {"model.safetensors", "weights", "state.json", "state", temporary}
    before = calls[: calls.index("manifest.json")]
    assert set(before) == payload
    assert calls[len(before) :][:4] == ["manifest.json", temporary, "RENAME", "checkpoints"]


def test_successor_inherits_checkpoints(tmp_path: Path) -> None:
    save(open_at(tmp_path), 3)
    store = open_at(tmp_path)
    assert store.owner_epoch == 2
    assert store.newest is not None
    assert store.newest.name == "step-3-e1"
    owner = json.loads((tmp_path / "owner/2.json").read_text())
    assert owner == {"epoch": 2, "podUid": "uid", "inherited": ["step-3-e1"], "createdAt": NOW}
    save(store, 5)
    assert names(open_at(tmp_path)) == ["step-3-e1", "step-5-e2"]


def test_late_checkpoint_of_a_stale_trainer_is_invalid(tmp_path: Path) -> None:
    stale = open_at(tmp_path)
    save(stale, 3)
    late = tmp_path / "elsewhere"
    save(stale, 4)
    (tmp_path / "checkpoints/step-4-e1").rename(late)
    open_at(tmp_path)
    late.rename(tmp_path / "checkpoints/step-4-e1")
    third = open_at(tmp_path)
    assert names(third) == ["step-3-e1"]
    assert third.remove_stale() == ["step-4-e1"]


def test_stale_trainer_fails_in_a_save(tmp_path: Path) -> None:
    stale = open_at(tmp_path)

    def be_superseded(weights: Path, state: Path) -> None:
        write(weights, state)
        open_at(tmp_path)  # removes the staging directory of the stale trainer

    with pytest.raises(SupersededError, match="Trainer 2 took over"):
        stale.save(draft(3), be_superseded)
    with pytest.raises(SupersededError):
        stale.check_ownership()
    assert names(open_at(tmp_path)) == []


def test_incomplete_takeover_changes_nothing(tmp_path: Path) -> None:
    save(open_at(tmp_path), 3)
    (tmp_path / "owner/2.json").write_text('{"epoch": 2, "inher')
    store = open_at(tmp_path)
    assert (store.owner_epoch, names(store)) == (3, ["step-3-e1"])


def test_owner_epoch_is_never_reused(tmp_path: Path) -> None:
    save(open_at(tmp_path), 3)
    (tmp_path / "owner/1.json").unlink()
    (tmp_path / "checkpoints/step-3-e1/manifest.json").unlink()
    store = open_at(tmp_path)
    assert store.remove_stale() == ["step-3-e1"]
    save(store, 3)
    assert names(store) == ["step-3-e2"]


def test_resealed_manifest_is_valid(tmp_path: Path) -> None:
    save(open_at(tmp_path), 3)
    forge(tmp_path / "checkpoints/step-3-e1", '"method"', '"methot"')
    assert names(open_at(tmp_path)) == ["step-3-e1"]


def test_checkpoint_removed_by_a_user_is_ignored(tmp_path: Path) -> None:
    store = open_at(tmp_path, keep=1)
    save(store, 3)
    shutil.rmtree(tmp_path / "checkpoints/step-3-e1")
    save(store, 6)
    assert names(store) == ["step-6-e1"]


def test_checkpoints_without_an_owner_are_inherited(tmp_path: Path) -> None:
    save(open_at(tmp_path), 3)
    (tmp_path / "owner/1.json").unlink()
    assert names(open_at(tmp_path)) == ["step-3-e1"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: (path / "manifest.json").unlink(), id="no manifest"),
        pytest.param(lambda path: (path / "manifest.json").write_text("{"), id="torn manifest"),
        pytest.param(lambda path: (path / "weights/model.safetensors").write_bytes(b"w"), id="short file"),
        pytest.param(lambda path: (path / "weights/model.safetensors").write_bytes(b"WEIGHTS"), id="other content"),
        pytest.param(lambda path: (path / "state/state.json").unlink(), id="missing file"),
        pytest.param(lambda path: path.rename(path.with_name("step-9-e1")), id="another step's name"),
        pytest.param(
            lambda path: (path / "manifest.json").write_text(
                (path / "manifest.json").read_text().replace('"method"', '"methot"')
            ),
            id="another setting's name",
        ),
        pytest.param(
            lambda path: forge(path, "state/state.json", "../../../outside"),
            id="a file outside",
        ),
    ],
)
def test_corrupt_checkpoint_is_invalid(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    store = open_at(tmp_path)
    save(store, 3)
    save(store, 6)
    (tmp_path / "outside").write_bytes(b"{}")
    damage(tmp_path / "checkpoints/step-6-e1")
    assert names(open_at(tmp_path)) == ["step-3-e1"]


def test_newest_and_best_checkpoints_are_kept(tmp_path: Path) -> None:
    store = open_at(tmp_path, keep=2)
    for step, loss in ((1, 0.9), (2, 0.1), (3, 0.5), (4, 0.1), (5, 0.7)):
        save(store, step, evalLoss=loss)
    assert [(one.step, one.best) for one in store.statuses()] == [(2, True), (4, False), (5, False)]
    index = json.loads((tmp_path / "checkpoints/index.json").read_text())
    assert (index["last"], index["best"]) == ("step-5-e1", "step-2-e1")
    assert [one["name"] for one in index["checkpoints"]] == ["step-2-e1", "step-4-e1", "step-5-e1"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == [
        "step-2-e1",
        "step-4-e1",
        "step-5-e1",
    ]


def test_step_saved_again_counts_once(tmp_path: Path) -> None:
    first = open_at(tmp_path, keep=2)
    save(first, 3)
    save(first, 6)
    second = open_at(tmp_path, keep=2)
    save(second, 6, evalLoss=0.5)
    assert names(second) == ["step-3-e1", "step-6-e2"]


def test_index_is_rebuilt_from_the_manifests(tmp_path: Path) -> None:
    save(open_at(tmp_path), 3)
    (tmp_path / "checkpoints/index.json").write_text("nonsense")
    open_at(tmp_path)
    assert json.loads((tmp_path / "checkpoints/index.json").read_text())["last"] == "step-3-e1"


def test_takeover_removes_only_leftovers_of_interrupted_writes(tmp_path: Path) -> None:
    open_at(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / ".tmp-e1/step-9-e1/weights").mkdir(parents=True)
    (checkpoints / ".tmp-file").write_text("")
    (checkpoints / "notes").mkdir()
    open_at(tmp_path).close()
    assert sorted(path.name for path in checkpoints.iterdir()) == ["index.json", "notes"]


def test_checkpoint_files_are_readable_for_other_users(tmp_path: Path) -> None:
    def write_private(weights: Path, state: Path) -> None:
        write(weights, state)
        (weights / "model.safetensors").chmod(0o600)

    open_at(tmp_path).save(draft(1), write_private)
    mode = (tmp_path / "checkpoints/step-1-e1/weights/model.safetensors").stat().st_mode
    assert mode & 0o444 == 0o444


def test_run_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigurationError, match="is not a directory"):
        open_at(tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EUCLEAN, "Structure needs cleaning"), "The volume of /run is damaged."),
        (OSError(errno.ESTALE, "Stale file handle"), "The volume of /run was taken away from this node."),
        (OSError(errno.EROFS, "Read-only file system"), "The volume of /run is read-only."),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "The volume of /run is full."),
        (PermissionError(errno.EACCES, "Permission denied", "/run/x"), "may not write to /run/x."),
    ],
)
def test_volume_errors_are_mapped(error: Exception, sentence: str) -> None:
    with pytest.raises(StorageError, match=re.escape(sentence)), storage_errors(Path("/run")):
        raise error


def test_other_errors_are_not_mapped() -> None:
    with pytest.raises(SafetensorError), storage_errors(Path("/run")):
        raise SafetensorError("header too large")
