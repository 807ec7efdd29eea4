"""Files of a run, from the artifact reader of its volume."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from trainyard_crds.serving import FILES_PATH, LISTING_PATH, ArtifactListing
from trainyard_trainer.errors import NotFoundError, NotPermittedError, SourceError, first_line
from trainyard_trainer.sources.remote_files import RemoteFile

_CHUNK = 1 << 20
_PARTIAL = 206
_TIMEOUT = httpx2.Timeout(60, connect=10)


@dataclass(frozen=True, kw_only=True)
class ReaderFiles:
    """The artifact reader of a volume; a `Remote` of the downloader.

    Attributes:
        address: Its URL.
        directory: The artifact's directory on the volume.
        token: File with the token for it; the kubelet renews it.
        authorities: File with the CA that signed its certificate.
    """

    address: str
    directory: str
    token: Path
    authorities: Path

    @property
    def part_bytes(self) -> int:
        """Bytes of one request."""
        return 256 << 20

    def url(self, key: str) -> str:
        """Return a URL for messages."""
        return f"{self.address}{FILES_PATH}{quote(f'{self.directory}/{key}')}"

    def listing(self) -> ArtifactListing:
        """Return the files of the artifact with their digests.

        Raises:
            TrainerError: see `read`.
        """
        url = f"{self.address}{LISTING_PATH}{quote(self.directory)}"
        with self._request(url, {}) as response:
            try:
                return ArtifactListing.model_validate_json(response.read())
            except ValidationError as error:
                raise SourceError(f"{url} answers with no list of files.") from error

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `stop`, exclusive.

        Raises:
            NotFoundError: there is no such file.
            NotPermittedError: the reader does not permit reading.
            SourceError: the reader does not answer, or refuses the token: the kubelet renews it.
        """
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with self._request(self.url(file.key), headers) as response:
            if response.status_code != _PARTIAL:
                raise SourceError(f"The artifact reader ignores the range of {file.key}.")
            yield from response.iter_raw(_CHUNK)

    @contextmanager
    def _request(self, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        """Send a request; the CA and the token are read each time, since they appear and change while the pod runs."""
        try:
            context = ssl.create_default_context(cafile=str(self.authorities))
            authorization = {"Authorization": f"Bearer {self.token.read_text().strip()}"}
        except OSError as error:
            raise SourceError(
                f"The pod has no credentials for the artifact reader yet: {error.filename or self.authorities}: "
                f"{error.strerror}."
            ) from error
        try:
            with (
                httpx2.Client(verify=context, timeout=_TIMEOUT, trust_env=False) as client,
                client.stream("GET", url, headers={**headers, **authorization}) as response,
            ):
                self._check(response)
                yield response
        except (httpx2.HTTPError, ssl.SSLError) as error:
            raise SourceError(f"The artifact reader {self.address} cannot be reached: {first_line(error)}") from error

    def _check(self, response: httpx2.Response) -> None:
        code = response.status_code
        if code in (200, _PARTIAL):
            return
        response.read()
        if code == 404:
            raise NotFoundError(
                f"The run's volume has no artifact at {self.directory}.",
                "It may have been deleted; name another checkpoint, or another TrainingJob.",
            )
        if code == 403:
            raise NotPermittedError(f"The artifact reader does not permit reading: {_message(response)}")
        raise SourceError(f"The artifact reader answers HTTP {code}: {_message(response)}")


def _message(response: httpx2.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
