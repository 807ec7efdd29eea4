"""Models and adapters in object storage: only their own files are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.trainer.sources import s3_server
from tests.unit.trainer.sources.s3_server import Storage, upload
from trainyard_crds.serving import Artifact
from trainyard_serving.fetch.failures import UnfitError
from trainyard_serving.fetch.selection import adapter_files
from trainyard_serving.fetch.sources import Sources
from trainyard_trainer.errors import NotFoundError

ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"adapter"}
MODEL = {"config.json": b"{}", "model.safetensors": b"model"}
OTHERS = {"optimizer.pt": b"pickle", "run.py": b"code", "checkpoint-7/adapter_config.json": b"{}"}


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with s3_server.serve() as server:
        yield server


def fetch(storage: Storage, cache: Path, folder: str, *, adapter: bool) -> dict[str, bytes]:
    """Fetch a folder and return the files."""
    sources = Sources(namespace="team", cache=cache, environ=storage.environ, s3=storage.s3, reader_timeout=0)
    artifact = Artifact(source=f"s3://models/{folder}", display=f"s3://models/{folder}")
    found = sources.fetch(artifact, adapter_files) if adapter else sources.fetch(artifact)
    return {path.name: path.read_bytes() for path in found.iterdir()}


def put(storage: Storage, folder: str, files: dict[str, bytes], directory: Path) -> None:
    for name in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
    upload(storage, f"s3://models/{folder}", files, directory)


def test_adapter_and_model_are_fetched_without_other_files(storage: Storage, tmp_path: Path) -> None:
    put(storage, "both", {**ADAPTER, **MODEL, **OTHERS}, tmp_path / "up")
    assert fetch(storage, tmp_path / "adapters", "both", adapter=True) == ADAPTER
    assert fetch(storage, tmp_path / "models", "both", adapter=False) == {**ADAPTER, **MODEL}


def test_pickled_adapter_is_refused_before_it_is_fetched(storage: Storage, tmp_path: Path) -> None:
    put(storage, "pickled", {"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"}, tmp_path / "up")
    with pytest.raises(UnfitError, match="pickled"):
        fetch(storage, tmp_path / "cache", "pickled", adapter=True)
    assert not (tmp_path / "cache").exists()


def test_folder_without_files(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no model in s3://models/nothing"):
        fetch(storage, tmp_path / "cache", "nothing", adapter=False)
    with pytest.raises(UnfitError, match=r"It has no adapter_config\.json"):
        fetch(storage, tmp_path / "cache", "nothing", adapter=True)
