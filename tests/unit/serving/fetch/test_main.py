"""The programs fetch and fetch-adapter as the pod runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving.reader_process import environment
from tests.unit.serving.runs import MODEL, write
from trainyard_crds.serving import Artifact, FetchFailure, ServingConfig

ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"adapter", "optimizer.pt": b"not for serving"}


@dataclass
class Pod:
    """Directories of a pod of a ModelDeployment."""

    folder: Path

    @property
    def model_path(self) -> Path:
        return self.folder / "models" / "model"

    @property
    def termination_log(self) -> Path:
        return self.folder / "termination-log"

    def run(self, *arguments: str, model: Path, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program of serving with a model on a claim."""
        self.model_path.parent.mkdir(exist_ok=True)
        config = ServingConfig(
            namespace="team",
            name="chat",
            model=Artifact(source=f"file://{model}", display=f"pvc://models/{model.name}"),
            model_path=str(self.model_path),
            base_name="base",
            max_adapter_rank=16,
            drain_seconds=30,
        )
        path = self.folder / "serving.json"
        path.write_text(config.model_dump_json(by_alias=True))
        variables = environment(
            TRAINYARD_PROXY_CONFIG=str(path), TRAINYARD_TERMINATION_LOG=str(self.termination_log), HOME=str(self.folder)
        )
        command = [sys.executable, "-m", "trainyard_serving", *arguments]
        return subprocess.run(command, env=variables, input=text, capture_output=True, text=True, check=False)

    def fetch_adapter(self, source: Path) -> subprocess.CompletedProcess[str]:
        artifact = Artifact(source=f"file://{source}", display=f"pvc://claim/{source.name}")
        target = self.folder / "adapters" / "a1"
        return self.run("fetch-adapter", str(target), model=self.folder, text=artifact.model_dump_json(by_alias=True))


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def failure(text: str) -> FetchFailure:
    return FetchFailure.model_validate_json(text.strip().rpartition("\n")[2])


def test_model_on_a_claim_is_where_the_engine_looks(pod: Pod, tmp_path: Path) -> None:
    write(tmp_path / "claim/tiny", MODEL)
    for _ in range(2):  # a restarted container finds the link of the first one
        done = pod.run("fetch", model=tmp_path / "claim/tiny")
        assert done.returncode == 0, done.stderr
    assert (pod.model_path / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert names(pod.model_path.parent) == ["model"]


PICKLED: dict[str, Any] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (PICKLED, "The model pvc://models/tiny has only pickled weights (pytorch_model.bin), which are never loaded"),
        ({"config.json": b"{}"}, "The model pvc://models/tiny has no *.safetensors weights. Copy the complete model."),
        ({"model.safetensors": b"x"}, "pvc://models/tiny is not a model: it has no config.json."),
        ({}, "The model pvc://models/tiny does not exist."),
    ],
)
def test_unusable_model_has_a_sentence_in_the_termination_message(
    pod: Pod, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    write(tmp_path / "claim/tiny", files)
    done = pod.run("fetch", model=tmp_path / "claim/tiny")
    assert done.returncode == 1
    found = failure(pod.termination_log.read_text())
    assert message in found.message
    assert (found.reason, found.final) == ("SourceNotFound", True)
    assert not pod.model_path.exists()
    assert "Traceback" not in done.stderr


def test_adapter_is_copied_without_other_files(pod: Pod, tmp_path: Path) -> None:
    write(tmp_path / "claim/style", ADAPTER)
    done = pod.fetch_adapter(tmp_path / "claim/style")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "adapters/a1") == ["adapter_config.json", "adapter_model.safetensors"]
    assert names(tmp_path / "adapters") == ["a1"]


def test_remains_of_a_killed_fetch_are_replaced(pod: Pod, tmp_path: Path) -> None:
    write(tmp_path / "claim/style", ADAPTER)
    write(tmp_path / "adapters/.a1.new", {"adapter_config.json": b"old", "adapter_other": b"old"})
    assert pod.fetch_adapter(tmp_path / "claim/style").returncode == 0
    assert (tmp_path / "adapters/a1/adapter_config.json").read_bytes() == b"{}"
    assert not (tmp_path / "adapters/a1/adapter_other").exists()


@pytest.mark.parametrize(
    ("files", "reason", "message"),
    [
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"x"}, "PickledAdapter", "weights are pickled"),
        ({"adapter_config.json": b"{}"}, "MissingFile", "It has no adapter_model.safetensors."),
        (MODEL, "MissingFile", "It has no adapter_config.json."),
        ({}, "SourceNotFound", "There is no directory pvc://claim/style."),
    ],
)
def test_unusable_adapter_has_a_failure_on_stdout(
    pod: Pod, tmp_path: Path, files: dict[str, bytes], reason: str, message: str
) -> None:
    write(tmp_path / "claim/style", files)
    done = pod.fetch_adapter(tmp_path / "claim/style")
    assert done.returncode == 1
    found = failure(done.stdout)
    assert (found.reason, found.final) == (reason, True)
    assert message in found.message
    assert not (tmp_path / "adapters/a1").exists()


def test_adapters_that_cannot_be_written_may_be_tried_again(pod: Pod, tmp_path: Path) -> None:
    write(tmp_path / "claim/style", ADAPTER)
    (tmp_path / "adapters").write_text("a file")
    done = pod.fetch_adapter(tmp_path / "claim/style")
    found = failure(done.stdout)
    assert (done.returncode, found.reason, found.final) == (1, "StorageFailed", False)
    assert "Traceback" not in done.stderr


def test_unknown_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainyard_serving", "serve"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 64
    assert json.dumps(done.stderr).count("use proxy, fetch, fetch-adapter or artifacts") == 1
