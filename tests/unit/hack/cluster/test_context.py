"""Build contexts and image tags."""

import os
from pathlib import Path

import pytest

from cluster import context, images
from cluster.errors import ImageError
from cluster.paths import ROOT

DOCKERFILE = "FROM scratch\nCOPY code/pkg /opt/pkg\nCOPY lock.txt /tmp/lock.txt\nCOPY --from=x /a /b\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "code" / "pkg" / "__pycache__").mkdir(parents=True)
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / "lock.txt").write_text("a==1\n")
    (root / "code" / "pkg" / "main.py").write_text("print(1)\n")
    (root / "code" / "pkg" / "__pycache__" / "main.pyc").write_bytes(b"x")
    (root / "secret.txt").write_text("not for the image")
    return root


def _tag(root: Path) -> str:
    return context.stage(root, "Dockerfile", root.parent / "staged").tag


def test_only_copied_files_are_staged(checkout: Path) -> None:
    staged = context.stage(checkout, "Dockerfile", checkout.parent / "staged")
    files = {str(path.relative_to(staged.folder)) for path in staged.folder.rglob("*") if path.is_file()}
    assert files == {"Dockerfile", "lock.txt", "code/pkg/main.py"}


def test_tag_changes_with_code_but_not_with_times_or_caches(checkout: Path) -> None:
    tag = _tag(checkout)
    os.utime(checkout / "lock.txt", (1, 1))
    (checkout / "code" / "pkg" / "__pycache__" / "other.pyc").write_bytes(b"y")
    (checkout / "secret.txt").write_text("changed")
    assert _tag(checkout) == tag
    (checkout / "code" / "pkg" / "main.py").write_text("print(2)\n")
    assert _tag(checkout) != tag


def test_a_renamed_file_changes_the_tag(checkout: Path) -> None:
    tag = _tag(checkout)
    (checkout / "code" / "pkg" / "main.py").rename(checkout / "code" / "pkg" / "other.py")
    assert _tag(checkout) != tag


def test_staged_files_have_fixed_times(checkout: Path) -> None:
    staged = context.stage(checkout, "Dockerfile", checkout.parent / "staged")
    assert {path.stat().st_mtime for path in staged.folder.rglob("*")} == {0}


def test_missing_source_raises_image_error(checkout: Path) -> None:
    (checkout / "lock.txt").unlink()
    with pytest.raises(ImageError, match=r"Dockerfile copies 'lock\.txt', which is not in"):
        _tag(checkout)


@pytest.mark.parametrize("image", images.IMAGES.values(), ids=lambda image: image.name)
def test_dockerfiles_copy_lock_before_code(image: images.Image) -> None:
    text = (ROOT / image.dockerfile).read_text()
    copied = context.sources(text)
    assert copied[0] == image.lock
    assert ("crds/trainyard_crds" in copied) == image.is_kept
    assert images.default_base(text)
    assert "ENV PATH" in text, "the marker of the dependency layer ends there"
