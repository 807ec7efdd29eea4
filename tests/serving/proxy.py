"""The proxy for tests: a process on loopback beside an engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.serving.engine import BASE, MAX_RANK, ROOT, Engine, completion, until
from trainyard_crds.serving import (
    LIVE_PATH,
    READY_PATH,
    STATE_PATH,
    AdapterSet,
    Artifact,
    DesiredAdapter,
    ReplicaState,
    ServingConfig,
)

PACKAGES = ("crds", "serving", "trainer_image")
DRAIN_SECONDS = 30


@dataclass(frozen=True)
class Proxy:
    """A running proxy.

    Attributes:
        process: Its process.
        url, status_url: URLs of its two ports.
        directory: Its files.
    """

    process: subprocess.Popen[bytes]
    url: str
    status_url: str
    directory: Path

    def want(self, adapters: Mapping[str, Path]) -> AdapterSet:
        """Replace the mounted adapter set, as the kubelet does."""
        wanted = AdapterSet.of(
            [
                DesiredAdapter(name=name, artifact=Artifact(source=f"file://{path}", display=str(path)))
                for name, path in adapters.items()
            ]
        )
        new = self.directory / "adapters.json.new"
        new.write_text(wanted.model_dump_json(by_alias=True, exclude_none=True))
        new.replace(self.directory / "adapters.json")
        return wanted

    def serve(self, adapters: Mapping[str, Path]) -> ReplicaState:
        """Replace the adapter set, and wait until it is settled."""
        wanted = self.want(adapters)
        until(lambda: (state := self.state()).adapter_set == wanted.version and state.ready)
        return self.state()

    def state(self) -> ReplicaState:
        return ReplicaState.model_validate_json(httpx2.get(f"{self.status_url}{STATE_PATH}", trust_env=False).content)

    def is_live(self) -> bool:
        return httpx2.get(f"{self.status_url}{LIVE_PATH}", trust_env=False, timeout=60).status_code == 200

    def is_ready(self) -> bool:
        return httpx2.get(f"{self.status_url}{READY_PATH}", trust_env=False).status_code == 200

    def complete(self, model: str, prompt: str, tokens: int = 16) -> httpx2.Response:
        """Ask for exactly so many tokens of a greedy completion."""
        body = completion(model, prompt, tokens, ignore_eos=True, return_token_ids=True)
        return httpx2.post(f"{self.url}/v1/completions", json=body, trust_env=False, timeout=120)

    def answer(self, model: str, prompt: str, tokens: int = 16) -> list[int]:
        response = self.complete(model, prompt, tokens).raise_for_status()
        return [int(token) for token in response.json()["choices"][0]["token_ids"]]


@contextmanager
def proxy_of(engine: Engine, model: Path, directory: Path) -> Iterator[Proxy]:
    """Run the proxy of an engine until the block ends; it is killed then."""
    directory.mkdir(parents=True, exist_ok=True)
    ports = [_free_port() for _ in range(2)]
    config = ServingConfig(
        namespace="team",
        name="bot",
        model=Artifact(source=f"file://{model}", display="pvc://models/tiny"),
        model_path=str(model),
        base_name=BASE,
        max_adapter_rank=MAX_RANK,
        drain_seconds=DRAIN_SECONDS,
    )
    (directory / "serving.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    (directory / "adapters.json").write_text(AdapterSet.of([]).model_dump_json(by_alias=True))
    variables = {
        "CONFIG": str(directory / "serving.json"),
        "ADAPTER_SET": str(directory / "adapters.json"),
        "ADAPTERS": str(directory / "adapters"),
        "DRAINED": str(directory / "drained"),
        "HOST": "127.0.0.1",
        "PORT": str(ports[0]),
        "STATUS_PORT": str(ports[1]),
        "ENGINE_PORT": str(engine.port),
    }
    environment = {
        **os.environ,
        "PYTHONPATH": ":".join(str(ROOT / package) for package in PACKAGES),
        **{f"TRAINYARD_PROXY_{name}": value for name, value in variables.items()},
    }
    with (directory / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainyard_serving", "proxy"], env=environment, stdout=log, stderr=log
        )
    proxy = Proxy(process, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", directory)
    try:
        until(lambda: _answers(proxy))
        yield proxy
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _answers(proxy: Proxy) -> bool:
    assert proxy.process.poll() is None, (proxy.directory / "proxy.log").read_text()
    try:
        return proxy.is_ready()
    except httpx2.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
