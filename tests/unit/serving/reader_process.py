"""A real artifact reader process on loopback."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.unit.certificates import write_pair
from tests.unit.serving.service_accounts import ISSUER, Signer
from tests.unit.timeouts import TIMEOUT, wait_until

ROOT = Path(__file__).parents[3]
PACKAGES = ("crds", "serving", "trainer_image")


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program of serving."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(str(ROOT / name) for name in PACKAGES), **more}


@dataclass
class Reader:
    """The artifact reader of a claim.

    Attributes:
        claim: The claim's directory.
        folder: Directory of its Secret and its log.
        signer: Signs tokens that it accepts.
        access: What verifies tokens; None: the key of `signer`, for the namespace team.
        idle_seconds: Seconds after which it ends.
        port: Its port.
        host: Its name or address, as its clients know it.
    """

    claim: Path
    folder: Path
    signer: Signer = field(default_factory=Signer)
    access: dict[str, Any] | None = None
    idle_seconds: float = 600
    port: int = field(default_factory=free_port)
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.authorities, _key = write_pair(self.folder, "reader")
        good = {"keys": {"keys": [self.signer.jwk()]}, "issuer": ISSUER, "namespace": "team", "others": []}
        (self.folder / "access.json").write_text(json.dumps(self.access or good))
        self.token_file = self.folder / "token"
        self.token_file.write_text(self.signer.token())

    @property
    def address(self) -> str:
        return f"https://{self.host}:{self.port}"

    def start(self) -> None:
        """Start the process; it serves a moment later."""
        variables = environment(
            TRAINYARD_READER_HOST="127.0.0.1",
            TRAINYARD_READER_PORT=str(self.port),
            TRAINYARD_READER_SECRETS=str(self.folder),
            TRAINYARD_READER_VOLUME=str(self.claim),
            TRAINYARD_READER_IDLE=str(self.idle_seconds),
        )
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainyard_serving", "artifacts"], env=variables, stderr=log
            )

    def wait_until_serving(self) -> None:
        """Wait until it answers, or has ended."""

        def answers() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                return True
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(answers)

    def stop(self) -> int:
        """End the process with SIGTERM and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(TIMEOUT)

    def get(self, path: str, token: str | None = None, headers: dict[str, str] | None = None) -> httpx2.Response:
        """Send a request exactly as given; `token` replaces a good one, an empty one sends none."""
        token = self.signer.token() if token is None else token
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        context = ssl.create_default_context(cafile=str(self.authorities))
        with httpx2.Client(verify=context, trust_env=False, timeout=TIMEOUT) as client:
            return client.get(f"{self.address}{path}", headers={**authorization, **(headers or {})})


@contextmanager
def serving(reader: Reader) -> Iterator[Reader]:
    """Start a reader and end it afterwards."""
    reader.start()
    try:
        reader.wait_until_serving()
        yield reader
    finally:
        reader.stop()
