"""moto's S3 server on loopback, which checks signatures and permissions."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainyard_crds.runconfig import RunS3
from trainyard_trainer.sources.s3 import Bucket

ROOT = Path(__file__).parents[4]


@dataclass(frozen=True)
class Storage:
    """The server; its bucket is named models.

    Attributes:
        s3: Its settings.
        environ: Variables with the credentials of a user.
        temporary: Credentials of a role, by the names of AWS: AccessKeyId, SecretAccessKey, SessionToken.
    """

    s3: RunS3
    environ: dict[str, str]
    temporary: dict[str, str]


@contextmanager
def serve() -> Iterator[Storage]:
    made = subprocess.run([ROOT / "hack/venv", "moto"], stdout=subprocess.PIPE, text=True, check=True)
    python = Path(made.stdout.strip()) / "bin/python"
    command = [str(python), "-I", str(Path(__file__).with_name("moto_process.py"))]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        found = json.loads(process.stdout.readline())
        yield Storage(
            RunS3(endpoint=found["endpoint"]),
            {"AWS_ACCESS_KEY_ID": found["id"], "AWS_SECRET_ACCESS_KEY": found["secret"]},
            found["temporary"],
        )
    finally:
        process.stdin.close()
        process.kill()  # a forked process may still hold its standard input
        process.wait()


def nothing(_share: float = 0.0) -> None:
    """A poll or progress callback without effect."""


def upload(storage: Storage, url: str, files: dict[str, bytes], directory: Path) -> None:
    """Write files to a directory and upload them to a folder."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    Bucket.open(url, storage.s3, storage.environ).upload(directory, list(files), {}, nothing, nothing)
