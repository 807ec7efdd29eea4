"""Files in object storage (s3://) or on a web server (https://): look-up, listing, ranged reads, writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import HTTPStore, S3Store

from trainyard_crds.constants import S3_CREDENTIALS, S3_SESSION_TOKEN
from trainyard_crds.runconfig import RunS3
from trainyard_trainer.errors import ConfigurationError, NotFoundError, NotPermittedError, SourceError, TrainerError
from trainyard_trainer.sources.uploads import UnfinishedUploads

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig, S3Config

S3_SCHEME = "s3://"
WEB_SCHEMES = ("https://", "http://")
SHA256 = "sha256"
"""User metadata of an object: hex SHA-256 of its content."""

_TIMEOUT = timedelta(seconds=60)
"""Timeout of one request and its response; parts are small enough for slow networks."""
_RETRY: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}

_IDENTITY = {
    "AWS_ROLE_ARN": "role_arn",
    "AWS_ROLE_SESSION_NAME": "role_session_name",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "web_identity_token_file",
    "AWS_ENDPOINT_URL_STS": "endpoint_url_sts",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "container_credentials_relative_uri",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "container_credentials_full_uri",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "container_authorization_token_file",
}
"""Variables of a cloud identity, and the settings of the client."""
_IDENTITIES = (
    ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
)
"""The variables that each kind of identity needs."""


@dataclass(frozen=True)
class RemoteFile:
    """One file behind a URL."""

    key: str
    bytes: int
    tag: str | None
    """ETag: changes with the content."""
    sha256: str | None = None
    """None if the server does not report it."""
    blob: str | None = None
    """Git's SHA-1 of the content; None if the server does not report it."""


class Remote:
    """A bucket or a web server.

    Every method raises NotFoundError, NotPermittedError, SourceError or ConfigurationError.
    """

    part_bytes = 16 << 20
    """The timeout of the client covers a whole response, so a part must fit into it on a slow network."""

    def __init__(self, store: Any, root: str, uploads: UnfinishedUploads | None = None) -> None:
        self._store = store
        self._root = root
        self._uploads = uploads

    def url(self, key: str) -> str:
        """The name of a file in messages."""
        return f"{self._root}/{key}"

    def look_up(self, key: str) -> RemoteFile:
        """Size, tag and digest of a file."""
        with _client_errors(self.url(key)):
            found = obstore.get(self._store, key, options={"head": True})
            meta = found.meta
            digest = found.attributes.get(SHA256)
            return RemoteFile(key, meta["size"], meta["e_tag"], None if digest is None else str(digest))

    def list(self, folder: str) -> list[RemoteFile]:
        """Every file below a folder, by key."""
        with _client_errors(self.url(folder)):
            found = [meta for page in obstore.list(self._store, folder) for meta in page]
        return sorted(
            (RemoteFile(meta["path"], meta["size"], meta["e_tag"]) for meta in found), key=lambda one: one.key
        )

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, exclusive; SourceError if the file changed since `look_up`."""
        options: GetOptions = {} if start == 0 and stop == file.bytes else {"range": (start, stop)}
        if file.tag is not None and not file.tag.startswith("W/"):
            options["if_match"] = file.tag
        with _client_errors(self.url(file.key)):
            for chunk in obstore.get(self._store, file.key, options=options).stream(min_chunk_size=1 << 20):
                yield bytes(chunk)

    def write(self, key: str, chunks: Iterator[bytes], sha256: str) -> None:
        """Write a file atomically, in parts, with its digest as metadata.

        An error removes the parts; those of a killed process remain: see `abort_uploads`.
        """
        with _client_errors(self.url(key)):
            obstore.put(self._store, key, chunks, attributes={SHA256: sha256}, chunk_size=8 << 20, max_concurrency=4)

    def abort_uploads(self, key: str) -> None:
        """Remove the parts of unfinished writes of a file from the bucket, including those of other processes."""
        if self._uploads is not None:
            self._uploads.abort(key)


def open_bucket(bucket: str, s3: RunS3, environ: Mapping[str, str]) -> Remote:
    """A bucket, with the credentials of the environment: keys, else a cloud identity, else none (unsigned requests)."""
    config = _credentials(environ)
    if s3.endpoint is not None:
        config["endpoint"] = s3.endpoint
    config |= {"region": s3.region, "checksum_algorithm": "SHA256"}
    store = S3Store(bucket, config=config, client_options=_client(s3.endpoint or ""), retry_config=_RETRY)
    return Remote(store, f"{S3_SCHEME}{bucket}", _unfinished_uploads(bucket, s3, environ))


def _credentials(environ: Mapping[str, str]) -> S3Config:
    key, secret = (environ.get(name) for name in S3_CREDENTIALS)
    if key and secret:
        config: S3Config = {"access_key_id": key, "secret_access_key": secret}
        if token := environ.get(S3_SESSION_TOKEN):
            config["session_token"] = token
        return config
    if has_identity(environ):
        # The client reads these variables too, but from the process; given here, the arguments decide.
        found = {name: environ[variable] for variable, name in _IDENTITY.items() if environ.get(variable)}
        return cast("S3Config", found)
    return {"skip_signature": True}


def has_identity(environ: Mapping[str, str]) -> bool:
    """Whether the platform gave the pod a cloud identity, which the client exchanges for temporary credentials.

    The variables are set by the webhooks of IAM roles for service accounts and of EKS Pod Identity, and by ECS. The
    metadata service of a machine is not used: its identity is that of every pod on the machine.
    """
    return any(all(environ.get(name) for name in names) for names in _IDENTITIES)


def _unfinished_uploads(bucket: str, s3: RunS3, environ: Mapping[str, str]) -> UnfinishedUploads | None:
    key, secret = (environ.get(name) for name in S3_CREDENTIALS)
    if not (key and secret):
        return None  # the credentials of an identity stay in the client; a lifecycle rule of the bucket removes parts
    return UnfinishedUploads(
        endpoint=s3.endpoint or f"https://s3.{s3.region}.amazonaws.com",
        bucket=bucket,
        region=s3.region,
        key_id=key,
        secret=secret,
        session_token=environ.get(S3_SESSION_TOKEN) or None,
    )


def open_web(url: str) -> tuple[Remote, str]:
    """The web server of a URL and the key on it."""
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}"
    return Remote(HTTPStore(root, client_options=_client(root), retry_config=_RETRY), root), unquote(parts.path[1:])


def _client(address: str) -> ClientConfig:
    return {"allow_http": address.startswith("http://"), "timeout": _TIMEOUT, "connect_timeout": timedelta(seconds=10)}


@contextmanager
def _client_errors(name: str) -> Iterator[None]:
    try:
        yield
    except exceptions.BaseError as error:
        raise _translate(error, name) from None  # its text may contain the signature of the request
    except FileNotFoundError:
        raise _not_found(name) from None


def _translate(error: exceptions.BaseError, name: str) -> TrainerError:
    if isinstance(error, exceptions.NotFoundError):
        return _not_found(name)
    if _is_refusal(error):
        return NotPermittedError(f"The server does not permit access to {name}.", _permission_advice(name))
    if isinstance(error, exceptions.PreconditionError):
        return SourceError(f"{name} changed while it was downloaded.", "Start again when it is complete.")
    if isinstance(error, exceptions.InvalidPathError):
        return ConfigurationError(f"{name} is not a valid path in object storage.", "Correct it.")
    return SourceError(f"{name} cannot be reached: {_reason(error)}.", "Try again.")


def _is_refusal(error: exceptions.BaseError) -> bool:
    """Whether the server refuses access; for a listing, only the text of the error shows it."""
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return True
    return any(status in str(error) for status in ("401 Unauthorized", "403 Forbidden"))


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"There is no {name}.", "Check the bucket and the path; with object storage, spec.s3 too.")


def _permission_advice(name: str) -> str:
    if name.startswith(S3_SCHEME):
        return (
            "Name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in spec.s3.credentialsSecret, or a "
            "ServiceAccount with a cloud identity that may use the bucket in spec.pod.serviceAccountName."
        )
    return "Put the file where no login is needed: on a claim, or in object storage."


def _reason(error: exceptions.BaseError) -> str:
    """The innermost cause in the error of the client, without its debug output."""
    first = str(error).partition("\n")[0].strip()
    return first.rpartition(" - ")[2].rpartition("HTTP error: ")[2][:200].rstrip(". ")
