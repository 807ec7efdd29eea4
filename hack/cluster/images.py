"""Builds the project's images with buildah and pushes them to the node's registry."""

import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cluster import context, packages
from cluster.errors import DiskSpaceError, ImageError
from cluster.paths import ROOT, cache_dir
from cluster.registry import Registry
from cluster.shell import locked, run, say

_BASE = "localhost/trainyard/base:bookworm"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclasses.dataclass(frozen=True)
class Image:
    """One of the project's images.

    Attributes:
        name: Its name in the registry, under `trainyard/`.
        dockerfile: Name of its Dockerfile.
        lock: The lock file of its dependency layer.
        gigabytes: Disk that the first build takes: build store, registry and node together.
        minutes: About how long the first build takes.
        is_kept: Whether the build store keeps the image after the push, for the next build of its code layer.
    """

    name: str
    dockerfile: str
    lock: str
    gigabytes: float
    minutes: int
    is_kept: bool = True


IMAGES = {
    "operator": Image("operator", "Dockerfile.operator", "requirements/operator.txt", 1.5, 1),
    "trainer": Image("trainer", "Dockerfile.trainer", "requirements/trainer.txt", 20, 7),
    "server": Image("server", "Dockerfile.server", "requirements/server.txt", 16, 7, is_kept=False),
}


@dataclasses.dataclass(frozen=True)
class Build:
    """An image in the registry.

    Attributes:
        reference: The image reference for pods.
        new_dependencies: The dependency layer was built too, so the image shares nothing large with older builds.
    """

    reference: str
    new_dependencies: bool


def load(names: Iterable[str], host: str) -> dict[str, Build]:
    """Build the images that changed, push them and return each by its name.

    Args:
        names: Keys of `IMAGES`.
        host: Host and port of the registry that the node pulls from.

    Raises:
        ClusterError: the disk is too full, or a build or push failed.
    """
    packages.ensure(packages.IMAGES)
    registry = Registry(host)
    store = Store(cache_dir() / "buildah")
    with locked(cache_dir() / "buildah.lock", "another run is building images; waiting for it"):
        return {name: _load(IMAGES[name], registry, store) for name in names}


def _load(image: Image, registry: Registry, store: "Store") -> Build:
    with tempfile.TemporaryDirectory(prefix="trainyard-context.") as folder:
        staged = context.stage(ROOT, image.dockerfile, Path(folder) / "context")
        repository = f"trainyard/{image.name}"
        reference = f"{registry.host}/{repository}:{staged.tag}"
        if registry.has(repository, staged.tag):
            say(f"{reference} is there already")
            return Build(reference, new_dependencies=False)
        local = f"localhost/{repository}:{staged.tag}"
        build = Build(reference, new_dependencies=not store.has_dependencies(image))
        _require_space(image, build.new_dependencies)
        store.build(image, staged.folder, local)
        say(f"pushing {reference}")
        store.push(local, reference)
        store.forget_others(repository, staged.tag if image.is_kept else "")
    return build


class Store:
    """buildah with a separate store.

    Args:
        folder: Where the store is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, image: Image, folder: Path, name: str) -> None:
        """Build an image from a staged context.

        Raises:
            ImageError: a step failed; the text has its last lines.
        """
        if self.has_dependencies(image):
            say(f"building {name}: the code layer (3 s)")
        else:
            say(f"building {name}: about {image.minutes} min for the dependencies, once per lock file")
        options = ["--layers", "--isolation=chroot", f"--build-arg=BASE_IMAGE={self._base()}"]
        self._buildah(
            "bud", *options, *pip_options(), f"--file={folder / image.dockerfile}", f"--tag={name}", str(folder)
        )
        if not image.is_kept:
            return
        marker = self._marker(image)
        marker.parent.mkdir(parents=True, exist_ok=True)
        for old in marker.parent.glob(f"{image.name}-*"):
            old.unlink()
        marker.touch()

    def push(self, name: str, reference: str) -> None:
        """Push an image with the fastest compression.

        Raises:
            ImageError: the registry refused.
        """
        fast = ["--compression-format=zstd", "--compression-level=1"]
        self._buildah("push", "--tls-verify=false", *fast, name, f"docker://{reference}")

    def forget_others(self, repository: str, tag: str) -> None:
        """Remove the builds of an image but the one with a tag; layers that this one shares stay."""
        listed = self._buildah("images", "--format={{.Name}}:{{.Tag}}", "--filter=dangling=false").split()
        old = [name for name in listed if name.startswith(f"localhost/{repository}:") and not name.endswith(f":{tag}")]
        for name in old:
            self._buildah("rmi", name)

    def has_dependencies(self, image: Image) -> bool:
        """Return whether the dependency layer of the present lock file was built before."""
        return self._marker(image).exists()

    def _marker(self, image: Image) -> Path:
        above_code = (ROOT / image.dockerfile).read_text().split("ENV PATH")[0]
        key = context.digest_of(above_code, (ROOT / image.lock).read_text())
        return self._folder / "dependencies" / f"{image.name}-{key}"

    def _base(self) -> str:
        if self._buildah("images", "--format={{.ID}}", "--filter=reference=" + _BASE).strip():
            return _BASE
        default = default_base((ROOT / "Dockerfile.trainer").read_text())
        say(f"looking for base image {default} in a registry (up to 30 s)")
        try:
            self._buildah("pull", "--quiet", default, timeout=30)
            self._buildah("tag", default, _BASE)
        except ImageError:
            self._bootstrap()
        return _BASE

    def _bootstrap(self) -> None:
        say("no registry has it here: making a Debian base image by debootstrap (about 1 min, 300 MB)")
        packages.ensure(packages.BASE_IMAGE)
        with tempfile.TemporaryDirectory(prefix="base.", dir=self._folder.parent) as folder:
            include = "--include=python3,python3-venv,ca-certificates"
            run(["debootstrap", "--variant=minbase", include, "bookworm", folder], error=ImageError)
            Path(folder).chmod(0o755)
            for leftover in [*Path(folder).glob("var/cache/apt/**/*.deb"), *Path(folder).glob("var/lib/apt/lists/*_*")]:
                leftover.unlink()
            working = self._buildah("from", "scratch").strip()
            self._buildah("copy", "--quiet", working, folder, "/")
            self._buildah("commit", "--quiet", "--disable-compression", "--rm", working, _BASE)

    def _buildah(self, *args: str, timeout: float | None = None) -> str:
        storage = ["--root", str(self._folder / "root"), "--runroot", "/run/trainyard/buildah"]
        return run(["nice", "buildah", *storage, *args], error=ImageError, timeout=timeout)


def pip_options() -> list[str]:
    """Return the build options that give pip this machine's certificates, index and download cache."""
    downloads = Path(os.environ.get("PIP_CACHE_DIR") or Path.home() / ".cache" / "pip")
    downloads.mkdir(parents=True, exist_ok=True)
    options = [f"--volume={downloads}:/root/.cache/pip:rw", "--build-arg=PIP_CACHE=--cache-dir=/root/.cache/pip"]
    if _CERTIFICATES.exists():
        options += [
            f"--volume={_CERTIFICATES.parent}:{_CERTIFICATES.parent}:ro",
            f"--build-arg=PIP_CERT={_CERTIFICATES}",
        ]
    if os.environ.get("PIP_INDEX_URL"):
        options.append(f"--build-arg=PIP_INDEX_URL={os.environ['PIP_INDEX_URL']}")
    return options


def default_base(dockerfile: str) -> str:
    """Return the base image that a Dockerfile names by default.

    Raises:
        ImageError: it names none.
    """
    match = re.search(r"^ARG BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    if not match:
        raise ImageError("the Dockerfile has no line 'ARG BASE_IMAGE=...'.")
    return match[1]


def _require_space(image: Image, new_dependencies: bool) -> None:
    needed = image.gigabytes if new_dependencies else 1.0
    free = shutil.disk_usage(cache_dir()).free / 1e9
    if free < needed:
        raise DiskSpaceError(
            f"image '{image.name}' needs {needed:.1f} GB of free disk at {cache_dir()} (build store, registry, node), "
            f"and {free:.1f} GB are free: free some, or set TRAINYARD_CACHE and TRAINYARD_STATE to a larger disk."
        )
