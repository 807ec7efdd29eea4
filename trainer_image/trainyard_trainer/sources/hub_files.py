"""Files of a repository of the hub: listing with sizes and digests, ranged reads, caches."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from huggingface_hub import HfApi, get_session, get_token, hf_hub_url, hf_raise_for_status, try_to_load_from_cache
from huggingface_hub.hf_api import RepoFile

from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.sources.download import Downloader
from trainyard_trainer.sources.hub import SCHEME, HubRepository, Select, hub_errors, model_files
from trainyard_trainer.sources.remote_files import RemoteFile

_SECONDS = 60
"""Read timeout: time without a byte."""
_CHUNK = 1 << 20
_LISTINGS = "listings"


@dataclass(frozen=True)
class HubFiles:
    """The files of one commit, as a `download.Remote`. Its methods raise the errors of `hub.hub_errors`."""

    repository: HubRepository
    commit: str
    part_bytes: ClassVar[int] = 1 << 40
    """Unlimited: a response has no total timeout, only one between bytes."""

    def url(self, key: str) -> str:
        """The name of a file in messages."""
        return f"{SCHEME}{self.repository.name}/{key}"

    def list(self) -> list[RemoteFile]:
        """Every file in the root of the repository."""
        one = self.repository
        with hub_errors(one):
            found = HfApi(endpoint=one.endpoint).list_repo_tree(one.name, revision=self.commit, repo_type=one.kind)
            return [_remote_file(entry) for entry in found if isinstance(entry, RepoFile)]

    def look_up(self, key: str) -> RemoteFile:
        """Size and digests of one file."""
        one = self.repository
        with hub_errors(one, key):
            api = HfApi(endpoint=one.endpoint)
            found = api.get_paths_info(one.name, [key], revision=self.commit, repo_type=one.kind)
        files = [_remote_file(entry) for entry in found if isinstance(entry, RepoFile)]
        if not files:
            raise NotFoundError(f"The hub has no file {self.url(key)}.", f"Check the path in {one.field}.")
        return files[0]

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, exclusive; drops earlier ones if the server has no ranges."""
        one = self.repository
        address = hf_hub_url(one.name, file.key, repo_type=one.kind, revision=self.commit, endpoint=one.endpoint)
        with hub_errors(one, file.key):
            # No content encoding: the bytes must be those of the file.
            headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
            if token := get_token():
                headers["Authorization"] = f"Bearer {token}"  # the client drops it on a redirect to another host
            with get_session().stream("GET", address, headers=headers, timeout=_SECONDS) as response:
                hf_raise_for_status(response)
                dropped = 0 if response.status_code == 206 else start
                for chunk in response.iter_raw(_CHUNK):
                    yield chunk[dropped:]
                    dropped = max(0, dropped - len(chunk))

    def in_hub_cache(self, file: RemoteFile) -> Path | None:
        """The path of the file in the cache of the hub's tools on this machine, if it is complete."""
        one = self.repository
        found = try_to_load_from_cache(one.name, file.key, revision=self.commit, repo_type=one.kind)
        path = Path(found) if isinstance(found, str) else None
        return path if path is not None and path.stat().st_size == file.bytes else None


def fetch_model(repository: HubRepository, commit: str, downloader: Downloader, select: Select = model_files) -> Path:
    """Download weights, configuration and tokenizer, or find them in a cache; returns their directory.

    Args:
        repository: The repository.
        commit: The commit.
        downloader: Downloads them.
        select: Chooses the files.

    Raises:
        TrainerError: see `hub.hub_errors` and `Downloader.fetch_all`.
    """
    remote = HubFiles(repository, commit)
    listed = _cached_listing(downloader.cache, remote.url(f"@{commit}"), remote.list)
    selected = set(select([file.key for file in listed]))
    files = [file for file in listed if file.key in selected]
    if files and None not in (found := [remote.in_hub_cache(file) for file in files]):
        assert found[0] is not None
        return found[0].parent
    return downloader.fetch_all(remote, [(file, file.key) for file in files])


def fetch_file(repository: HubRepository, key: str, commit: str, downloader: Downloader) -> Path:
    """Download one file of a dataset repository, or find it in a cache; raises as `fetch_model` does."""
    remote = HubFiles(repository, commit)
    [file] = _cached_listing(downloader.cache, remote.url(f"{key}@{commit}"), lambda: [remote.look_up(key)])
    return remote.in_hub_cache(file) or downloader.fetch(remote, file)


def _remote_file(entry: RepoFile) -> RemoteFile:
    """Large files have a SHA-256, small ones the object id of git."""
    if entry.lfs is None:
        return RemoteFile(entry.path, entry.size, entry.blob_id, blob=entry.blob_id)
    return RemoteFile(entry.path, entry.size, entry.lfs.sha256, sha256=entry.lfs.sha256)


def _cached_listing(cache: Path, name: str, query: Callable[[], list[RemoteFile]]) -> list[RemoteFile]:
    """The result of `query`, stored in the cache: a commit is immutable, so cached files need no hub."""
    path = cache / _LISTINGS / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError):
        return [RemoteFile(**entry) for entry in json.loads(path.read_bytes())]
    found = query()
    with suppress(OSError):  # the download reports an unwritable cache
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        with os.fdopen(descriptor, "w") as file:
            json.dump([asdict(entry) for entry in found], file)
        Path(temporary).rename(path)
    return found
