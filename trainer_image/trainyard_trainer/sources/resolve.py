"""From the sources of a run config to paths on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainyard_crds.runconfig import RunModelSource
from trainyard_trainer.engine.task import Resolved
from trainyard_trainer.sources import files, hub


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A base model on this machine."""

    path: Path
    name: str
    """The source as the user wrote it."""
    revision: str | None
    """The commit, for a model of the hub."""

    @property
    def reference(self) -> str:
        """What an adapter names as its base: the hub's name, the directory, or the claim it lay on."""
        return self.name.removeprefix(hub.SCHEME).removeprefix(files.SCHEME)


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A dataset file on this machine."""

    path: Path
    name: str
    """The source as the user wrote it."""


def resolve_model(
    model: RunModelSource, resolved: Resolved, poll: Callable[[], None], *, endpoint: str | None = None
) -> LocalModel:
    """Fetch a base model.

    Args:
        model: Where it is.
        resolved: Remembers the commit of a hub model.
        poll: Called again and again while downloading; may raise.
        endpoint: Address of the hub, where it is not the usual one.

    Raises:
        NotFoundError: there is no such model, or it has no safetensors weights.
        NotPermittedError: the hub wants other credentials.
        SourceError: the hub cannot be reached or failed.
    """
    name = model.display_source or files.display_name(model.source)
    if not model.source.startswith(hub.SCHEME):
        path, revision = files.local_path(model.source), None
    else:
        repository = hub.HubRepository(
            kind="model", name=model.source.removeprefix(hub.SCHEME), revision=model.revision, endpoint=endpoint
        )
        revision = repository.commit(resolved)
        path = hub.fetch_model(repository, revision, poll)
    files.check_model_directory(path, name)
    return LocalModel(path=path, name=name, revision=revision)


def resolve_file(
    source: str, resolved: Resolved, poll: Callable[[], None], *, endpoint: str | None = None
) -> LocalFile:
    """Fetch one dataset file; arguments and errors as in `resolve_model`. A local file is looked for by its reader."""
    name = files.display_name(source)
    if not source.startswith(hub.SCHEME):
        return LocalFile(path=files.local_path(source), name=name)
    owner, repository_name, file = source.removeprefix(hub.SCHEME).split("/", 2)
    repository = hub.HubRepository(kind="dataset", name=f"{owner}/{repository_name}", endpoint=endpoint)
    return LocalFile(path=hub.fetch_file(repository, file, repository.commit(resolved), poll), name=name)
