"""Resolution of the sources of a run config to paths on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainyard_crds.runconfig import RunModelSource, RunS3
from trainyard_trainer.errors import DataError, NotFoundError
from trainyard_trainer.resolved import Resolved
from trainyard_trainer.sources import files, hub, hub_files, remote_files
from trainyard_trainer.sources.download import Downloader, cache_directory, fingerprint
from trainyard_trainer.sources.s3 import split_url


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A base model on this machine."""

    path: Path
    name: str
    """The source as the user wrote it."""
    revision: str | None
    """The commit of a hub model."""

    @property
    def reference(self) -> str:
        """The base model in an adapter's config: the name on the hub, the directory, or the claim."""
        return self.name.removeprefix(hub.SCHEME).removeprefix(files.SCHEME)


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A dataset file on this machine."""

    path: Path
    name: str
    """The source as the user wrote it."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Access to sources that are not on this machine."""

    s3: RunS3 = field(default_factory=RunS3)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    endpoint: str | None = None
    """Address of the hub; None: the default."""
    cache: Path | None = None
    """Directory for downloads; None: the user's cache."""
    progress: Callable[[float], None] = lambda _percent: None
    """Receives the percentage of a download done, 0 to 100."""
    sleep: Callable[[float], None] = time.sleep

    def downloader(self, poll: Callable[[], None]) -> Downloader:
        """A downloader into the cache."""
        return Downloader(cache=self.cache or cache_directory(), poll=poll, progress=self.progress, sleep=self.sleep)

    def bucket(self, url: str) -> tuple[remote_files.Remote, str]:
        """The bucket of an s3:// URL and the key."""
        bucket, key = split_url(url)
        return remote_files.open_bucket(bucket, self.s3, self.environ), key


def resolve_model(
    model: RunModelSource, resolved: Resolved, poll: Callable[[], None], access: Access | None = None
) -> LocalModel:
    """Fetch a base model.

    Args:
        model: Its source.
        resolved: Stores the commit of a hub model for the run.
        poll: Called during the download; may raise.
        access: Default: the public hub and AWS.

    Raises:
        DataError: the model changed since the run started.
        NotFoundError: the model does not exist, or it has no safetensors weights.
        NotPermittedError: the source refuses the credentials.
        SourceError: the hub cannot be reached or failed.
    """
    access = access or Access()
    name = model.display_source or files.display_name(model.source)
    revision: str | None = None
    if model.source.startswith(remote_files.S3_SCHEME):
        path = fetch_directory(model.source, resolved, poll, access)
    elif not model.source.startswith(hub.SCHEME):
        path = files.local_path(model.source)
    else:
        repository = hub.HubRepository(
            kind="model", name=model.source.removeprefix(hub.SCHEME), revision=model.revision, endpoint=access.endpoint
        )
        revision = repository.commit(resolved)
        path = hub_files.fetch_model(repository, revision, access.downloader(poll))
    files.check_model_directory(path, name)
    return LocalModel(path=path, name=name, revision=revision)


def resolve_file(
    source: str,
    resolved: Resolved,
    poll: Callable[[], None],
    access: Access | None = None,
    *,
    sha256: str | None = None,
) -> LocalFile:
    """Fetch one dataset file; raises as `resolve_model` does. The reader checks whether a local file exists.

    Args:
        source: Its source.
        resolved: Stores the commit of a hub file for the run.
        poll: Called during the download; may raise.
        access: Default: the public hub and AWS.
        sha256: The expected digest of a downloaded file, hex.

    Raises:
        DataError: it has another digest.
    """
    access = access or Access()
    name = files.display_name(source)
    if source.startswith((remote_files.S3_SCHEME, *remote_files.WEB_SCHEMES)):
        is_object = source.startswith(remote_files.S3_SCHEME)
        remote, key = access.bucket(source) if is_object else remote_files.open_web(source)
        return LocalFile(path=access.downloader(poll).fetch(remote, remote.look_up(key), sha256), name=name)
    if not source.startswith(hub.SCHEME):
        return LocalFile(path=files.local_path(source), name=name)
    owner, repository_name, file = source.removeprefix(hub.SCHEME).split("/", 2)
    repository = hub.HubRepository(kind="dataset", name=f"{owner}/{repository_name}", endpoint=access.endpoint)
    commit = repository.commit(resolved)
    return LocalFile(path=hub_files.fetch_file(repository, file, commit, access.downloader(poll)), name=name)


def fetch_directory(
    source: str,
    resolved: Resolved,
    poll: Callable[[], None],
    access: Access,
    select: hub.Select = hub.model_files,
) -> Path:
    """Fetch the model files of a directory in object storage.

    Args:
        source: Its URL.
        resolved: Stores which files were found.
        poll: Called during the download; may raise.
        access: Credentials, cache.
        select: Chooses the files.

    Raises:
        DataError: they changed since the run started.
        NotFoundError: there are none.
        TrainerError: see `Downloader.fetch_all`.
    """
    remote, folder = access.bucket(source)
    found = [(file, file.key.removeprefix(f"{folder}/")) for file in remote.list(folder)]
    names = set(select([name for _file, name in found]))
    selected = [(file, name) for file, name in found if name in names]
    if not selected:
        raise NotFoundError(f"There is no model in {source}.", "Check spec.model.source and spec.s3.")
    digest, key = fingerprint(remote, [file for file, _name in selected]), f"files:{source}"
    if (previous := resolved.get(key)) not in {None, digest}:
        raise DataError(
            f"The files of the model {source} changed since the run started.",
            "Restore the old files, or start a new run (a new TrainingJob, or another runDirectory).",
        )
    if previous is None:
        resolved.put(key, digest)
    return access.downloader(poll).fetch_all(remote, [(remote.look_up(file.key), name) for file, name in selected])
