from pathlib import Path

import pytest

from tests.unit.trainer.resolved import ResolvedMemory
from trainyard_crds.runconfig import RunModelSource
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.sources.files import local_path
from trainyard_trainer.sources.resolve import resolve_file, resolve_model


def resolve(directory: Path, display: str | None = None) -> str:
    source = RunModelSource(source=f"file://{directory}", display_source=display)
    return resolve_model(source, ResolvedMemory(), lambda: None).name


def test_complete_model_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert resolve(tmp_path) == f"file://{tmp_path}"
    assert resolve(tmp_path, "pvc://models/tiny") == "pvc://models/tiny"


def test_errors_use_the_display_name(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="The model pvc://models/none does not exist"):
        resolve(tmp_path / "none", "pvc://models/none")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFoundError, match="is a file, not a directory"):
        resolve(tmp_path / "file")
    with pytest.raises(NotFoundError, match=r"is not a model: it has no config.json"):
        resolve(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NotFoundError, match=r"has no \*.safetensors weights"):
        resolve(tmp_path)


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(NotFoundError, match=r"only pickled weights \(pytorch_model.bin\)") as caught:
        resolve(tmp_path)
    assert "save_pretrained" in caught.value.advice


def test_display_name_of_a_mounted_claim(tmp_path: Path) -> None:
    file = resolve_file("file:///volumes/claims/data/sub/rows.jsonl", ResolvedMemory(), lambda: None)
    assert file.name == "pvc://data/sub/rows.jsonl"
    assert file.path == Path("/volumes/claims/data/sub/rows.jsonl")


def test_escapes_of_a_file_url_are_decoded(tmp_path: Path) -> None:
    directory = tmp_path / "my run"
    directory.mkdir()
    assert local_path(directory.as_uri()) == directory
    assert local_path(f"file://{directory}") == directory


def test_a_path_with_a_percent_sign_is_found_as_it_is_written(tmp_path: Path) -> None:
    written = tmp_path / "my%20run"
    written.mkdir()
    assert local_path(f"file://{written}") == written
