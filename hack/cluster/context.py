"""Build contexts: the files a Dockerfile copies, staged so that equal content gives equal layers."""

import dataclasses
import hashlib
import os
import re
import shutil
from pathlib import Path

from cluster.errors import ImageError

_SKIPPED = ("__pycache__", "*.pyc", "node_modules")
_COPY = re.compile(r"^COPY\s+(?!--)(\S+)\s+\S+\s*$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Context:
    """A staged build context.

    Attributes:
        folder: Where it is.
        tag: 12 hexadecimal digits of the content.
    """

    folder: Path
    tag: str


def sources(dockerfile: str) -> list[str]:
    """Return the paths that a Dockerfile copies from its context."""
    return _COPY.findall(dockerfile)


def stage(root: Path, dockerfile: str, folder: Path) -> Context:
    """Copy what a Dockerfile needs to a fresh folder and name the content.

    All times and modes are fixed, so that an unchanged lock file hits the layer cache in any checkout.

    Args:
        root: The checkout.
        dockerfile: Name of the Dockerfile in it.
        folder: Where to; what is there is replaced.

    Raises:
        ImageError: a file that the Dockerfile copies is missing.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in [dockerfile, *sources((root / dockerfile).read_text())]:
        path, target = root / source, folder / source
        if not path.exists():
            raise ImageError(f"{dockerfile} copies '{source}', which is not in {root}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns(*_SKIPPED))
        else:
            shutil.copyfile(path, target)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (0, 0))
    return Context(folder, digest(folder))


def digest(folder: Path) -> str:
    """Return 12 hexadecimal digits of the names and contents of a folder's files."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder)}\0{content}\n".encode())
    return total.hexdigest()[:12]


def digest_of(*texts: str) -> str:
    """Return 12 hexadecimal digits of some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
