"""Unfinished uploads leave no parts in the bucket after an error, a stop request or a kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.sources.s3_server import Storage
from trainyard_trainer.errors import StopRequested, TrainerError
from trainyard_trainer.sources.s3 import Bucket
from trainyard_trainer.sources.uploads import UnfinishedUploads

NAME = "model one (\u00e9)~.safetensors"
UPLOADER = """
import json, os, signal, sys
from pathlib import Path
from typing import Any
from trainyard_crds.runconfig import RunS3
from trainyard_trainer.sources.s3 import Bucket

directory, name, url, endpoint = sys.argv[1:]
polls = []

def poll():
    polls.append(1)
    if len(polls) == 30:
        os.kill(os.getpid(), signal.SIGKILL)

Bucket.open(url, RunS3(endpoint=endpoint)).upload(Path(directory), [name], {}, lambda _share: None, poll)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / NAME).write_bytes(os.urandom(40 << 20))
    return tmp_path


def unfinished(storage: Storage, key: str, **changes: str) -> list[str]:
    id_, secret = storage.environ.values()
    options: dict[str, Any] = {
        "endpoint": str(storage.s3.endpoint),
        "key_id": id_,
        "secret": secret,
        "bucket": "models",
        **changes,
    }
    return UnfinishedUploads(region=storage.s3.region, session_token=None, **options).find(key)


def nothing(_share: float = 0) -> None:
    pass


def after(polls: int, error: Exception) -> Callable[[], None]:
    """A poll that raises on call number `polls`."""
    calls: list[int] = []

    def poll() -> None:
        calls.append(1)
        if len(calls) >= polls:
            raise error

    return poll


def upload(storage: Storage, url: str, directory: Path, poll: Callable[[], None]) -> None:
    Bucket.open(url, storage.s3, storage.environ).upload(directory, [NAME], {}, nothing, poll)


@pytest.mark.parametrize("error", [StopRequested("Stopped on request."), OSError("the volume is gone")])
def test_failed_upload_leaves_no_parts(storage: Storage, directory: Path, error: Exception) -> None:
    url = f"s3://models/early-{type(error).__name__}"
    with pytest.raises((StopRequested, OSError, TrainerError)):
        upload(storage, url, directory, after(25, error))
    assert unfinished(storage, f"{url.removeprefix('s3://models/')}/{NAME}") == []


def test_next_attempt_aborts_uploads_of_a_killed_one(storage: Storage, directory: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", UPLOADER, directory, NAME, "s3://models/killed", str(storage.s3.endpoint)],
        env={**os.environ, **storage.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    key = f"killed/{NAME}"
    assert [len(unfinished(storage, name)) for name in (key, key[:-1], f"{key}.x")] == [1, 0, 0]
    for change in ({"endpoint": "http://127.0.0.1:9"}, {"secret": "hunter2"}, {"key_id": "AKIANOBODY"}):
        assert unfinished(storage, key, **change) == []
    upload(storage, "s3://models/killed", directory, nothing)
    assert unfinished(storage, key) == []


def test_signature_equals_the_published_example() -> None:
    """The example "GET Bucket (List Objects)" of "Signature Version 4" in the Amazon S3 API Reference."""
    uploads = UnfinishedUploads(
        endpoint="https://examplebucket.s3.amazonaws.com",
        bucket="",
        region="us-east-1",
        key_id="AKIAIOSFODNN7EXAMPLE",
        secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        now=lambda: datetime(2013, 5, 24, tzinfo=UTC),
    )
    headers = uploads._signed("GET", "examplebucket.s3.amazonaws.com", "/", "max-keys=2&prefix=J")
    signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert headers["authorization"].endswith(f"Signature={signature}")
    assert "wJalr" not in json.dumps(headers) + repr(uploads)
