"""The serving engine for tests: the real vLLM, on the CPU, as a process on loopback.

`running` starts one from the environment of `hack/venv server`, which is made if it is missing (6 GB). The engine
computes in 32 bits, so that its greedy answers can be compared. Nothing outside its process group is ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
BASE = "base"
"""Name of the base model in requests."""
MAX_RANK = 16
SHUTDOWN_SECONDS = 20
"""Time that the engine gives its requests after SIGTERM."""
_START_SECONDS = 600
"""A start takes 16 s on two idle cores, and minutes beside builds."""
_REQUEST_SECONDS = 60
_FLAGS = (
    *("--served-model-name", BASE, "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"),
    *("--max-model-len", "512", "--max-num-seqs", "16", "--kv-cache-memory-bytes", str(32 * 2**20)),
    *("--enable-lora", "--max-loras", "4", "--max-lora-rank", str(MAX_RANK)),
    *("--shutdown-timeout", str(SHUTDOWN_SECONDS)),
)
_VARIABLES = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        process: Its first process, the leader of its process group.
        port: Its port on 127.0.0.1.
        http: A client of it; a request that takes a minute raises.
        log_file: Its output.
    """

    process: subprocess.Popen[bytes]
    port: int
    http: httpx2.Client
    log_file: Path

    @property
    def url(self) -> str:
        """Its URL, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def models(self) -> list[str]:
        """Return the names of the base model and of the loaded adapters."""
        return [str(entry["id"]) for entry in self.http.get("/v1/models").json()["data"]]

    def load(self, name: str, path: Path, *, inplace: bool = False) -> httpx2.Response:
        """Load an adapter."""
        body = {"lora_name": name, "lora_path": str(path), "load_inplace": inplace}
        return self.http.post("/v1/load_lora_adapter", json=body)

    def unload(self, name: str) -> httpx2.Response:
        """Unload an adapter."""
        return self.http.post("/v1/unload_lora_adapter", json={"lora_name": name})

    def unload_all(self) -> None:
        """Unload every adapter."""
        for name in self.models():
            if name != BASE:
                self.unload(name).raise_for_status()

    def complete(self, model: str, prompt: str, tokens: int = 16, **fields: Any) -> httpx2.Response:
        """Ask for a greedy completion."""
        return self.http.post("/v1/completions", json=completion(model, prompt, tokens, **fields))

    def answer(self, model: str, prompt: str, tokens: int = 16) -> list[int]:
        """Return so many tokens of a greedy completion. Its text would lack an incomplete character at its end.

        Raises:
            httpx2.HTTPStatusError: the engine refused.
        """
        response = self.complete(model, prompt, tokens, ignore_eos=True, return_token_ids=True).raise_for_status()
        return [int(token) for token in response.json()["choices"][0]["token_ids"]]

    def stream(self, model: str, prompt: str, tokens: int, **fields: Any) -> Iterator[dict[str, Any]]:
        """Ask for a greedy completion of exactly so many tokens, and yield its events as they come.

        Raises:
            httpx2.HTTPStatusError: the engine refused.
        """
        body = completion(model, prompt, tokens, stream=True, ignore_eos=True, return_token_ids=True, **fields)
        with self.http.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))

    def core(self) -> int:
        """Return the process id of the engine core, the child that computes."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return next(int(child) for child in children if "EngineCore" in Path(f"/proc/{child}/cmdline").read_text())

    def log(self) -> str:
        """Return its output."""
        return self.log_file.read_text(errors="replace")


def completion(model: str, prompt: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """Return the body of a request for a greedy completion."""
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0} | fields


@contextmanager
def running(model: Path, directory: Path, *flags: str, **variables: str) -> Iterator[Engine]:
    """Run an engine until the block ends.

    Args:
        model: The base model.
        directory: Where its output goes; made if missing.
        flags: Further flags of vLLM.
        variables: Further variables.

    Raises:
        AssertionError: it did not start; the text has its last output.
    """
    made = subprocess.run([ROOT / "hack/venv", "server"], stdout=subprocess.PIPE, text=True, check=True)
    program = [f"{made.stdout.strip()}/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    port, log_file = _free_port(), directory / "engine.log"
    directory.mkdir(parents=True, exist_ok=True)
    command = [*program, "--model", str(model), "--port", str(port), *_FLAGS, *flags]
    # Not in `directory`: the path of a socket has at most 107 characters.
    with TemporaryDirectory(prefix="engine.") as scratch, log_file.open("ab") as output:
        environment = _environment(Path(scratch)) | variables
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=_REQUEST_SECONDS, trust_env=False) as http:
                engine = Engine(process, port, http, log_file)
                _wait_for_start(engine)
                yield engine
        finally:
            end(process)


def until(condition: Callable[[], T | None], seconds: float = 60) -> T:
    """Poll a condition and return its first true result.

    Raises:
        AssertionError: the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"the condition was not met within {seconds} s"
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    """End an engine with all processes of its group."""
    _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(SHUTDOWN_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait(SHUTDOWN_SECONDS)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _wait_for_start(engine: Engine) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _is_healthy(engine.http):
        ended = engine.process.poll() is not None
        assert not ended, f"the engine ended with {engine.process.returncode}:\n{engine.log()[-4000:]}"
        assert time.monotonic() < deadline, f"no start within {_START_SECONDS} s:\n{engine.log()[-4000:]}"
        time.sleep(0.1)


def _is_healthy(http: httpx2.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx2.TransportError:
        return False


def _environment(scratch: Path) -> dict[str, str]:
    """Return variables with the engine's own files in a directory, and without the path of our packages."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    places = {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "VLLM_CACHE_ROOT": str(scratch / "cache"),
        "VLLM_CONFIG_ROOT": str(scratch / "config"),
    }
    return kept | _VARIABLES | places


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
