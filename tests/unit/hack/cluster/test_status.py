"""The disk that `status` and `disk` report."""

from pathlib import Path

import pytest

from cluster import status


def test_disk_counts_cache_and_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, state = tmp_path / "cache", tmp_path / "state"
    for path, megabytes in ((cache / "venvs/a/file", 3), (state / "clusters/node/file", 1), (cache / "bin/file", 2)):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * megabytes * 2**20)
    (cache / "bin/second").hardlink_to(cache / "bin/file")
    monkeypatch.setenv("TRAINYARD_CACHE", str(cache))
    monkeypatch.setenv("TRAINYARD_STATE", str(state))

    assert status.disk() == f"disk: 6 MB in {cache} and {state} (venvs 3 MB, bin 2 MB, clusters 1 MB)"


def test_disk_of_an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRAINYARD_STATE", str(tmp_path / "state"))

    assert status.disk().startswith("disk: 0 MB in ")
