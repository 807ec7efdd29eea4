"""Files of a repository of the hub: listed with their sizes and digests, read in parts, found in caches."""

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
from trainyard_trainer.sources.hub import SCHEME, HubRepository, is_model_file, translated
from trainyard_trainer.sources.remote_files import RemoteFile

_SECONDS = 60
"""A server that sends nothing for so long is gone."""
_CHUNK = 1 << 20
_LISTINGS = "listings"


@dataclass(frozen=True)
class HubFiles:
    """The files of one commit; a `download.Remote`. Its methods raise what `hub.translated` says."""

    repository: HubRepository
    commit: str
    part_bytes: ClassVar[int] = 1 << 40
    """An answer may take as long as it likes, as long as something arrives."""

    def url(self, key: str) -> str:
        """A file's name for messages."""
        return f"{SCHEME}{self.repository.name}/{key}"

    def list(self) -> list[RemoteFile]:
        """Every file in the root of the repository."""
        one = self.repository
        with translated(one):
            found = HfApi(endpoint=one.endpoint).list_repo_tree(one.name, revision=self.commit, repo_type=one.kind)
            return [_remote_file(entry) for entry in found if isinstance(entry, RepoFile)]

    def look_up(self, key: str) -> RemoteFile:
        """Size and digests of one file."""
        one = self.repository
        with translated(one, key):
            api = HfApi(endpoint=one.endpoint)
            found = api.get_paths_info(one.name, [key], revision=self.commit, repo_type=one.kind)
        files = [_remote_file(entry) for entry in found if isinstance(entry, RepoFile)]
        if not files:
            raise NotFoundError(f"The hub has no file {self.url(key)}.", f"Check the path in {one.field}.")
        return files[0]

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`; where the server knows no ranges, what comes before is dropped."""
        one = self.repository
        address = hf_hub_url(one.name, file.key, repo_type=one.kind, revision=self.commit, endpoint=one.endpoint)
        with translated(one, file.key):
            # Without an encoding, so that the bytes are those of the file.
            headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
            if token := get_token():
                headers["Authorization"] = f"Bearer {token}"  # the client does not pass it on to another host
            with get_session().stream("GET", address, headers=headers, timeout=_SECONDS) as response:
                hf_raise_for_status(response)
                dropped = 0 if response.status_code == 206 else start
                for chunk in response.iter_raw(_CHUNK):
                    yield chunk[dropped:]
                    dropped = max(0, dropped - len(chunk))

    def in_hub_cache(self, file: RemoteFile) -> Path | None:
        """Where the hub's own tools have put it on this machine, if they have."""
        one = self.repository
        found = try_to_load_from_cache(one.name, file.key, revision=self.commit, repo_type=one.kind)
        path = Path(found) if isinstance(found, str) else None
        return path if path is not None and path.stat().st_size == file.bytes else None


def fetch_model(repository: HubRepository, commit: str, downloader: Downloader) -> Path:
    """Download (or find in a cache) weights, configuration and tokenizer; their directory.

    Raises:
        TrainerError: see `hub.translated` and `Downloader.fetch_all`.
    """
    remote = HubFiles(repository, commit)
    listed = _remembered(downloader.cache, remote.url(f"@{commit}"), remote.list)
    files = [file for file in listed if is_model_file(file.key)]
    if files and None not in (found := [remote.in_hub_cache(file) for file in files]):
        assert found[0] is not None
        return found[0].parent
    return downloader.fetch_all(remote, [(file, file.key) for file in files])


def fetch_file(repository: HubRepository, key: str, commit: str, downloader: Downloader) -> Path:
    """Download (or find in a cache) one file of a dataset repository; errors as in `fetch_model`."""
    remote = HubFiles(repository, commit)
    [file] = _remembered(downloader.cache, remote.url(f"{key}@{commit}"), lambda: [remote.look_up(key)])
    return remote.in_hub_cache(file) or downloader.fetch(remote, file)


def _remote_file(entry: RepoFile) -> RemoteFile:
    """A large file is known by its SHA-256, a small one by git's name for it."""
    if entry.lfs is None:
        return RemoteFile(entry.path, entry.size, entry.blob_id, blob=entry.blob_id)
    return RemoteFile(entry.path, entry.size, entry.lfs.sha256, sha256=entry.lfs.sha256)


def _remembered(cache: Path, name: str, ask: Callable[[], list[RemoteFile]]) -> list[RemoteFile]:
    """What was asked once; a commit never changes, and what is in the cache then needs no hub."""
    path = cache / _LISTINGS / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError):
        return [RemoteFile(**entry) for entry in json.loads(path.read_bytes())]
    found = ask()
    with suppress(OSError):  # a cache that takes nothing is told of where it is needed
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        with os.fdopen(descriptor, "w") as file:
            json.dump([asdict(entry) for entry in found], file)
        Path(temporary).rename(path)
    return found
