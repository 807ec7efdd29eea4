"""Where the files of an artifact are once they are fetched: by the scheme of its source."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from trainyard_crds.constants import CA_DIRECTORY, CA_KEY, CACHE_DIRECTORY, HUB_CACHE_ENV
from trainyard_crds.runconfig import RunS3
from trainyard_crds.serving import READER_CA_ENV, READER_TOKEN_ENV, READER_TOKEN_FILE, Artifact, reader_url
from trainyard_serving.fetch.reader_files import ReaderFiles
from trainyard_serving.fetch.selection import run_files
from trainyard_trainer.errors import DataError, SourceError
from trainyard_trainer.sources import files, hub, hub_files
from trainyard_trainer.sources.remote_files import S3_SCHEME
from trainyard_trainer.sources.resolve import Access, fetch_directory

T = TypeVar("T")
_RUN = "run://"
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 10.0


class _Values:
    """Resolved values of this process alone."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """Return a value."""
        return self._values.get(key)

    def put(self, key: str, value: str) -> None:
        """Keep a value."""
        self._values[key] = value


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Access to all sources.

    Attributes:
        namespace: Namespace of the pod.
        cache: Directory for downloads.
        environ: The environment: credentials, files of the artifact reader.
        s3: Object storage.
        reader_timeout: Seconds to wait for an artifact reader, which is started on demand.
        endpoint: Address of the hub; None: the default.
        sleep: Waits.
        address: Returns the URL of the artifact reader of a namespace and claim.
    """

    namespace: str
    cache: Path
    environ: Mapping[str, str]
    s3: RunS3 = field(default_factory=RunS3)
    reader_timeout: float
    endpoint: str | None = None
    sleep: Callable[[float], None] = time.sleep
    address: Callable[[str, str], str] = reader_url

    def fetch(self, artifact: Artifact, select: hub.Select = hub.model_files) -> Path:
        """Return the directory with the files of an artifact, fetched if they are elsewhere.

        Args:
            artifact: The artifact.
            select: Chooses the files that are fetched.

        Raises:
            TrainerError: see the tree of errors.
        """
        source = artifact.source
        if source.startswith(files.SCHEME):
            return files.local_path(source)
        if source.startswith(_RUN):
            return self._fetch_run(artifact, select)
        if source.startswith(S3_SCHEME):
            return fetch_directory(source, _Values(), _no_poll, self._access, select)
        name = source.removeprefix(hub.SCHEME)
        repository = hub.HubRepository(kind="model", name=name, revision=artifact.revision, endpoint=self.endpoint)
        commit = repository.commit(_Values())
        return hub_files.fetch_model(repository, commit, self._access.downloader(_no_poll), select)

    @property
    def _access(self) -> Access:
        return Access(s3=self.s3, environ=self.environ, cache=self.cache, sleep=self.sleep)

    def _fetch_run(self, artifact: Artifact, select: hub.Select) -> Path:
        claim, _, directory = artifact.source.removeprefix(_RUN).partition("/")
        reader = ReaderFiles(
            address=self.address(self.namespace, claim),
            directory=directory,
            token=Path(self.environ.get(READER_TOKEN_ENV, READER_TOKEN_FILE)),
            authorities=Path(self.environ.get(READER_CA_ENV, f"{CA_DIRECTORY}/{CA_KEY}")),
        )
        listing = self._when_started(reader.listing)
        if artifact.digest is not None and listing.digest != artifact.digest:
            raise DataError(
                f"{artifact.display} has the digest {listing.digest}, and {artifact.digest} was recorded: its files "
                "were changed.",
                "Name another checkpoint.",
            )
        wanted = run_files(listing, artifact.files, select, artifact.display)
        return self._access.downloader(_no_poll).fetch_all(reader, wanted)

    def _when_started(self, ask: Callable[[], T]) -> T:
        """Ask again while the reader is starting."""
        waited, pause = 0.0, _FIRST_WAIT
        while True:
            try:
                return ask()
            except SourceError:
                if waited >= self.reader_timeout:
                    raise
            self.sleep(pause)
            waited, pause = waited + pause, min(_LONGEST_WAIT, 2 * pause)


def cache_directory(environ: Mapping[str, str], otherwise: Path) -> Path:
    """Return the directory for downloads: on the shared cache volume, if the pod has one."""
    return Path(CACHE_DIRECTORY) if HUB_CACHE_ENV in environ else otherwise


def _no_poll() -> None:
    """Do nothing: a signal ends the process at once, and the next one resumes the download."""
