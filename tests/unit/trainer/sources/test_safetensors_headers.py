"""Safetensors headers of a model in object storage, read without its weights."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.trainer import tiny
from tests.unit.trainer.sources.s3_server import Storage, upload
from tests.unit.trainer.tasks.llm.runs import config
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.sources import remote_files
from trainyard_trainer.sources.safetensors_headers import read_bucket_headers
from trainyard_trainer.tasks.text.memory.shape import read_shape, shape_of

WEIGHTS = 5_000_000


class Counting(remote_files.Remote):
    """A bucket that counts the bytes it returns."""

    returned = 0

    def read(self, file: remote_files.RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        for chunk in super().read(file, start, stop):
            self.returned += len(chunk)
            yield chunk


def bucket(storage: Storage) -> Counting:
    opened = remote_files.open_bucket("models", storage.s3, storage.environ)
    return Counting(opened._store, opened._root)


def model_files(directory: Path, shard: str, padding: int = 0) -> dict[str, bytes]:
    """A tiny model with zeros after its weights and a header padded by `padding` bytes."""
    tiny.make_model().save_pretrained(directory, max_shard_size=shard)
    files = {one.name: one.read_bytes() for one in directory.iterdir()}
    for name, content in files.items():
        if name.endswith(".safetensors"):
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length]) | {"__metadata__": {"note": "x" * padding}}
            text = json.dumps(header).encode()
            files[name] = len(text).to_bytes(8, "little") + text + content[8 + length :] + bytes(WEIGHTS)
    return files


@pytest.mark.parametrize(("shard", "padding"), [("1GB", 0), ("300KB", 0), ("1GB", 150_000)])
def test_headers_are_read_without_weights(storage: Storage, tmp_path: Path, shard: str, padding: int) -> None:
    files, url = model_files(tmp_path / "model", shard, padding), f"s3://models/headers-{shard}-{padding}"
    upload(storage, url, files, tmp_path / "up")
    remote = bucket(storage)
    found = read_bucket_headers(remote, url.removeprefix("s3://models/"))
    assert shape_of(found.config, found.tensors, url) == read_shape(tmp_path / "model", url)
    shards = sum(name.endswith(".safetensors") for name in files)
    assert (shards > 1) == (shard == "300KB")
    assert remote.returned < 110_000 * shards + 2 * padding


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"model.safetensors": b"x"}, "There is no config.json in s3://models/broken"),
        ({"config.json": b"{}"}, r"There is no \*.safetensors files in s3://models/broken"),
        ({"config.json": b"{}", "model.safetensors": b"short"}, "The header of .*model.safetensors cannot be read"),
        ({"config.json": b"{}", "model.safetensors": b"\xff" * 64}, "cannot be read: it is not a safetensors file"),
        ({"config.json": b"{}", "model.safetensors": (8).to_bytes(8, "little") + b"nothings"}, "cannot be read"),
    ],
)
def test_incomplete_models_are_refused(storage: Storage, tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    folder = f"broken-{tmp_path.name}"
    upload(storage, f"s3://models/{folder}", files, tmp_path)
    with pytest.raises(NotFoundError, match=problem.replace("broken", folder)):
        read_bucket_headers(bucket(storage), folder)


def test_plan_command_accepts_a_model_in_a_bucket(storage: Storage, tmp_path: Path, tiny_model: Path) -> None:
    upload(storage, "s3://models/planned", model_files(tmp_path / "model", "1GB"), tmp_path / "up")
    document = config(tmp_path, tiny_model, "run", "lora").to_json()
    path = tmp_path / "run.json"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **storage.environ}
    outputs = []
    for source in (f"file://{tmp_path / 'model'}", "s3://models/planned"):
        path.write_text(
            json.dumps(
                {**document, "model": {"source": source}, "s3": storage.s3.model_dump(by_alias=True, exclude_none=True)}
            )
        )
        command = [sys.executable, "-m", "trainyard_trainer", "plan", str(path), "--device-memory", "4"]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert "auto means none on a device with 4.00 GiB" in outputs[0]
