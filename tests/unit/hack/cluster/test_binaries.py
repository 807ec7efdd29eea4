"""The name of the binaries' folder, and the generated go.mod."""

import dataclasses
from typing import Any

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
