"""Files of a run, from the artifact reader of its volume."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2

from trainyard_crds.serving import FILES_PATH, LISTING_PATH, ArtifactListing
from trainyard_trainer.errors import NotFoundError, NotPermittedError, SourceError
from trainyard_trainer.sources.remote_files import RemoteFile

_CHUNK = 1 << 20
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
        with self._client() as client:
            response = self._get(client, f"{self.address}{LISTING_PATH}{quote(self.directory)}", {})
            return ArtifactListing.model_validate_json(response.content)

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `stop`, exclusive.

        Raises:
            NotFoundError: there is no such file.
            NotPermittedError: the reader refuses the token.
            SourceError: the reader does not answer.
        """
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        try:
            with (
                self._client() as client,
                client.stream("GET", self.url(file.key), headers={**headers, **self._authorization()}) as response,
            ):
                self._check(response)
                yield from response.iter_raw(_CHUNK)
        except (httpx2.HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def _get(self, client: httpx2.Client, url: str, headers: dict[str, str]) -> httpx2.Response:
        try:
            response = client.get(url, headers={**headers, **self._authorization()})
        except (httpx2.HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        self._check(response)
        return response

    def _check(self, response: httpx2.Response) -> None:
        if response.status_code == 404:
            raise NotFoundError(
                f"The run's volume has no artifact at {self.directory}.",
                "It may have been deleted; name another checkpoint, or another TrainingJob.",
            )
        if response.status_code in (401, 403):
            raise NotPermittedError(f"The artifact reader refuses this pod (HTTP {response.status_code}).")
        if response.status_code not in (200, 206):
            raise SourceError(f"The artifact reader answers HTTP {response.status_code}.")

    def _client(self) -> httpx2.Client:
        context = ssl.create_default_context(cafile=str(self.authorities))
        return httpx2.Client(verify=context, timeout=_TIMEOUT, trust_env=False)

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token.read_text().strip()}"}

    def _unreachable(self, error: Exception) -> SourceError:
        return SourceError(f"The artifact reader {self.address} cannot be reached: {error}.")
