"""Clients and builders of the serving tests."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.kubectl import Kubectl, Object
from demo.serve import address
from tests.e2e.support import TIMEOUT, Site, condition

ROOT = Path(__file__).resolve().parents[3]
FLAGS = [
    "--dtype=float32",
    "--max-model-len=256",
    "--max-num-seqs=8",
    "--enforce-eager",
    "--kv-cache-memory-bytes=33554432",
]


def model_deployment(name: str, *, cpu: str = "400m", **spec: Any) -> Object:
    """Return a small CPU ModelDeployment; keyword arguments replace whole blocks of the spec."""
    blocks: dict[str, Any] = {"args": FLAGS, "resources": {"gpus": 0, "cpu": cpu, "memory": "3Gi"}, "drainSeconds": 30}
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": blocks | spec,
    }


@dataclass(frozen=True)
class Endpoint:
    """A ModelDeployment on the node."""

    site: Site
    name: str

    @property
    def kubectl(self) -> Kubectl:
        return self.site.kubectl

    def read(self) -> Object:
        path = f"/apis/trainyard.dev/v1alpha1/namespaces/{self.kubectl.namespace}/modeldeployments/{self.name}"
        found = self.site.read(path)
        assert found is not None, f"ModelDeployment {self.name} is gone"
        return found

    def status(self) -> dict[str, Any]:
        return dict(self.read().get("status", {}))

    def url(self) -> str:
        return address(self.kubectl, self.read())

    def pods(self) -> list[Object]:
        selector = f"labelSelector=trainyard.dev/modeldeployment%3D{self.name}"
        found = self.site.read(f"/api/v1/namespaces/{self.kubectl.namespace}/pods?{selector}")
        pods = found["items"] if found else []
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def patch(self, spec: dict[str, Any]) -> None:
        self.kubectl.run("patch", "md", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def wait(self, what: str, done: Any, seconds: float = TIMEOUT) -> dict[str, Any]:
        """Wait until the status meets a condition."""
        return dict(self.kubectl.wait(f"ModelDeployment {self.name}: {what}", self.status, done, seconds))

    def wait_settled(self, seconds: float = TIMEOUT) -> dict[str, Any]:
        """Wait until the newest spec is served as it is wanted."""

        def settled() -> bool:
            found = self.read()
            status = found.get("status", {})
            return (
                status.get("observedGeneration") == found["metadata"]["generation"]
                and condition(status, "Ready").get("status") == "True"
                and condition(status, "Reconciling").get("status") == "False"
            )

        self.kubectl.wait(f"ModelDeployment {self.name} is settled", settled, bool, seconds)
        return self.status()

    def adapter_files(self, target: Path) -> list[Path]:
        """Copy the adapters of a replica, and return their directories."""
        pod = self.pods()[0]["metadata"]["name"]
        command = self.kubectl.command("exec", pod, "-c", "proxy", "--", "tar", "cf", "-", "-C", "/adapters", ".")
        done = subprocess.run(command, capture_output=True, check=True, timeout=300)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
            files.extractall(target, filter="data")
        return sorted(path for path in target.iterdir() if path.is_dir() and not path.name.startswith("."))


@dataclass
class Answer:
    """One answer of an endpoint."""

    status: int
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.body["choices"][0]["text"])


def post(url: str, path: str, body: dict[str, Any], timeout: float = 120) -> Answer:
    """Send a request; an HTTP error is an answer."""
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Answer(response.status, json.load(response))
    except urllib.error.HTTPError as error:
        return Answer(error.code, json.loads(error.read() or b"{}"))


def complete(
    url: str, model: str, prompt: str | list[int], tokens: int = 8, timeout: float = 120, **more: Any
) -> Answer:
    """Complete a prompt greedily."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}
    return post(url, "/v1/completions", body, timeout)


@dataclass
class Load:
    """Requests that run until they are stopped.

    Attributes:
        answers: Status and text by model.
        faults: What failed otherwise.
    """

    answers: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, url: str, model: str, prompt: str) -> None:
        while not self._stop.is_set():
            try:
                answer = complete(url, model, prompt)
            except OSError as error:
                self.faults.append(f"{model}: {error!r}")
                continue
            text = answer.text if answer.status == 200 else json.dumps(answer.body)
            self.answers.setdefault(model, []).append((answer.status, text))

    def count(self, model: str) -> int:
        return len(self.answers.get(model, []))


@contextmanager
def load_on(url: str, models: list[str], prompt: str) -> Iterator[Load]:
    """Ask models again and again in the background."""
    load = Load()
    with ThreadPoolExecutor(len(models)) as pool:
        work = [pool.submit(load.run, url, model, prompt) for model in models]
        try:
            yield load
        finally:
            load._stop.set()
            for each in work:
                each.result()
