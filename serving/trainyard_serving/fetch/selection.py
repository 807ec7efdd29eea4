"""Which files of a source are fetched. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainyard_crds.serving import ArtifactListing
from trainyard_serving.adapter_files import CONFIG, WEIGHTS, missing
from trainyard_serving.fetch.failures import UnfitError
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.sources.hub import Select
from trainyard_trainer.sources.remote_files import RemoteFile


def adapter_files(names: Sequence[str]) -> list[str]:
    """Return the files of an adapter.

    Raises:
        UnfitError: there is none.
    """
    lacks = missing(names)
    if lacks is not None:
        raise UnfitError(lacks)
    return [CONFIG, WEIGHTS]


def run_files(listing: ArtifactListing, folder: str, select: Select, display: str) -> list[tuple[RemoteFile, str]]:
    """Return the files of an artifact to fetch, each with its name below `folder`.

    Args:
        listing: The files of the artifact.
        folder: Directory in the artifact; empty for the artifact itself.
        select: Chooses files by their names below `folder`.
        display: The artifact, for messages.

    Raises:
        TrainerError: there is no such file.
    """
    prefix = f"{folder}/" if folder else ""
    below = {path.removeprefix(prefix): path for path in sorted(listing.files) if path.startswith(prefix)}
    chosen = select(_plain(below))
    if not chosen:
        raise NotFoundError(f"There is no model in {display}.", "Name another checkpoint or export.")
    return [(_remote_file(listing, below[name]), name) for name in chosen]


def _plain(names: Iterable[str]) -> list[str]:
    """Return the names of files that are not in a sub-directory, so that no name leads out of the target."""
    return [name for name in names if "/" not in name and "\0" not in name and name not in ("", ".", "..")]


def _remote_file(listing: ArtifactListing, path: str) -> RemoteFile:
    entry = listing.files[path]
    return RemoteFile(path, entry.bytes, entry.sha256, sha256=entry.sha256)
