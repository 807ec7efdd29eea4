"""Models and adapters of the hub: only their own files are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.unit.trainer.sources import hub_server
from tests.unit.trainer.sources.hub_server import COMMIT, Hub
from trainyard_crds.serving import Artifact
from trainyard_serving.fetch.failures import UnfitError
from trainyard_serving.fetch.selection import adapter_files
from trainyard_serving.fetch.sources import Sources
from trainyard_trainer.errors import NotFoundError, SourceError

ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"adapter"}
MERGED = {"config.json": b"{}", "model-00001-of-00001.safetensors": b"merged", "tokenizer.json": b"{}"}
ARTIFACT = Artifact(source="hf://org/tiny", display="hf://org/tiny")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with hub_server.serve(Hub({**ADAPTER, **MERGED, "adapter_model.bin": b"pickle", "run.py": b"code"})) as server:
        yield server


def sources(hub: Hub, cache: Path) -> Sources:
    return Sources(namespace="team", cache=cache, environ={}, reader_timeout=0, endpoint=hub.address)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_adapter_is_fetched_without_the_other_files(hub: Hub, tmp_path: Path) -> None:
    assert names(sources(hub, tmp_path / "cache").fetch(ARTIFACT, adapter_files)) == set(ADAPTER)


def test_model_is_fetched_without_pickles_and_code(hub: Hub, tmp_path: Path) -> None:
    assert names(sources(hub, tmp_path / "cache").fetch(ARTIFACT)) == {*ADAPTER, *MERGED}


@pytest.mark.parametrize(
    ("missing", "reason"), [("adapter_model.safetensors", "PickledAdapter"), ("adapter_config.json", "MissingFile")]
)
def test_repository_without_an_adapter(hub: Hub, tmp_path: Path, missing: str, reason: str) -> None:
    del hub.files[missing]
    with pytest.raises(UnfitError) as unfit:
        sources(hub, tmp_path / "cache").fetch(ARTIFACT, adapter_files)
    assert unfit.value.reason == reason
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".bin", ".safetensors", ".part")]


def test_pinned_commit_in_the_cache_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    artifact = ARTIFACT.model_copy(update={"revision": COMMIT})
    first = sources(hub, tmp_path / "cache").fetch(artifact)
    hub.refuse = (503, "")
    assert sources(hub, tmp_path / "cache").fetch(artifact) == first
    with pytest.raises(SourceError):
        sources(hub, tmp_path / "cache").fetch(ARTIFACT)


def test_revision_is_used(hub: Hub, tmp_path: Path) -> None:
    assert sources(hub, tmp_path / "cache").fetch(ARTIFACT.model_copy(update={"revision": "v1"})).is_dir()
    with pytest.raises(NotFoundError, match="The hub has no revision 'v9' of hf://org/tiny"):
        sources(hub, tmp_path / "cache").fetch(ARTIFACT.model_copy(update={"revision": "v9"}))
