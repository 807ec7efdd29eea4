"""The name of the binaries' folder, and the generated go.mod."""

import dataclasses
import fcntl
from pathlib import Path
from typing import Any

import pytest

from cluster import binaries
from cluster.binaries import Recipe

RECIPES = {"one": Recipe("example.dev/one", "v1.2.3", "example.dev/one/cmd", 10)}


def _changed(**fields: Any) -> dict[str, Recipe]:
    return {"one": dataclasses.replace(RECIPES["one"], **fields)}


def test_key_changes_with_the_recipe() -> None:
    key = binaries.key("1.26.0", RECIPES)
    assert key != binaries.key("1.26.1", RECIPES)
    assert key != binaries.key("1.26.0", _changed(version="v1.2.4"))
    assert key != binaries.key("1.26.0", _changed(ldflags="-X a=b"))
    assert key != binaries.key("1.26.0", _changed(source="package main"))


def test_key_ignores_build_time() -> None:
    assert binaries.key("1.26.0", RECIPES) == binaries.key("1.26.0", _changed(seconds=99))


def test_kubernetes_version_is_linked_in() -> None:
    flags = binaries.RECIPES["kube-apiserver"].ldflags
    assert f"-X k8s.io/component-base/version.gitVersion=v{binaries.KUBERNETES}" in flags
    assert "-X k8s.io/component-base/version.gitMajor=1" in flags


def test_go_mod_turns_staging_replacements_into_published_modules() -> None:
    upstream = "module k8s.io/kubernetes\n\ngo 1.25.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n"
    recipe = Recipe("k8s.io/kubernetes", "v1.35.4", "k8s.io/kubernetes/cmd/kubelet", 1, staged=True)
    text = binaries.go_mod(recipe, upstream)
    assert "go 1.25.0\n" in text
    assert "require k8s.io/kubernetes v1.35.4\n" in text
    assert "replace k8s.io/api => k8s.io/api v0.35.4\n" in text


def test_go_mod_copies_pinned_replacements_and_drops_local_ones() -> None:
    upstream = "go 1.26\nreplace example.dev/a v1.0.0 => example.dev/b v2.0.0\nreplace example.dev/c => ../c\n"
    text = binaries.go_mod(RECIPES["one"], upstream)
    assert "replace example.dev/a v1.0.0 => example.dev/b v2.0.0\n" in text
    assert "example.dev/c" not in text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with all programs of the tests but pause, and Go's build cache."""
    monkeypatch.setattr(binaries, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(binaries, "bin_dir", lambda: tmp_path / "bin")
    monkeypatch.setattr(binaries, "_build", lambda _name, target: target.touch())
    (tmp_path / "go/build").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in {*binaries.NODE, "helm", "kwok"} - {"pause"}:
        (tmp_path / "bin" / name).touch()
    return tmp_path


def test_build_cache_is_removed_with_the_last_program_of_the_tests(cache: Path) -> None:
    binaries.ensure(binaries.API)
    binaries.ensure(["kueue"])
    assert (cache / "go/build").exists()

    binaries.ensure(binaries.NODE)
    assert not (cache / "go/build").exists()


def test_build_cache_stays_while_another_build_runs(cache: Path) -> None:
    with (cache / "go.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        binaries.ensure(binaries.NODE)

    assert (cache / "go/build").exists()
