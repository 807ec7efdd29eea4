"""What of a claim may be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.serving.exports import write_export
from tests.unit.serving.runs import ADAPTER, CHECKPOINT, EXPORT, MODEL, RUN, write, write_checkpoint
from trainyard_serving.artifacts.volume import UnreadableError, Volume

USER = 1000


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """A claim with a checkpoint, an export, the run's records and foreign files."""
    claim = tmp_path / "claim"
    write_checkpoint(claim)
    write_export(claim)
    write(claim / RUN, {"metrics.jsonl": b"{}", "log.jsonl": b"{}", "result.json": b"{}", "resolved.json": b"{}"})
    write(claim / RUN, {"owner.json": b"{}", "exports/merged/notes.txt": b"x", "checkpoints/manifest.json": b"{}"})
    write(claim, {"models/tiny/config.json": b"{}", "secret": b"x", "manifest.json": b"{}"})
    write(tmp_path, {"outside/secret": b"x"})
    return claim


def read(claim: Path, path: str) -> bytes | None:
    found = Volume(claim).open(path)
    if found is None:
        return None
    with os.fdopen(found.descriptor, "rb") as file:
        return file.read()


def test_checkpoint_is_listed_with_the_digest_of_the_status(tmp_path: Path) -> None:
    digest = write_checkpoint(tmp_path)
    found = Volume(tmp_path).listing(CHECKPOINT)
    assert found is not None
    assert found.digest == digest
    assert {name: entry.bytes for name, entry in found.files.items()} == {
        name: len(content) for name, content in ADAPTER.items()
    }


def test_export_is_listed_with_the_digest_of_the_status(tmp_path: Path) -> None:
    digest = write_export(tmp_path)
    found = Volume(tmp_path).listing(EXPORT)
    assert found is not None
    assert found.digest == digest
    assert set(found.files) == set(MODEL)


@pytest.mark.parametrize(
    "path",
    [
        "",
        RUN,
        f"{RUN}/checkpoints",
        f"{RUN}/checkpoints/step-9-e1",
        f"{RUN}/checkpoints/merged",
        f"{CHECKPOINT}/weights",
        f"{CHECKPOINT}/",
        f"/{CHECKPOINT}",
        f"{RUN}/exports/../checkpoints/step-7-e1",
        f"./{CHECKPOINT}",
        f"{CHECKPOINT}\0",
        "models/tiny",
        CHECKPOINT.replace("trainyard", "Trainyard"),
    ],
)
def test_nothing_else_is_listed(claim: Path, path: str) -> None:
    assert Volume(claim).listing(path) is None


@pytest.mark.parametrize(
    "path",
    [
        f"{CHECKPOINT}/manifest.json",
        *(f"{CHECKPOINT}/{name}" for name in ADAPTER),
        f"{EXPORT}/export.json",
        *(f"{EXPORT}/{name}" for name in MODEL),
        f"{RUN}/metrics.jsonl",
        f"{RUN}/log.jsonl",
        f"{RUN}/result.json",
        f"{RUN}/resolved.json",
    ],
)
def test_file_may_be_read(claim: Path, path: str) -> None:
    assert read(claim, path) == (claim / path).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "secret",
        "manifest.json",
        "models/tiny/config.json",
        f"{RUN}/owner.json",
        f"{RUN}/checkpoints/manifest.json",
        f"{EXPORT}/notes.txt",
        f"{EXPORT}/manifest.json",
        CHECKPOINT,
        f"{CHECKPOINT}/weights",
        f"{CHECKPOINT}/weights/",
        f"{CHECKPOINT}/weights//adapter_config.json",
        f"{CHECKPOINT}/weights/../weights/adapter_config.json",
        f"{CHECKPOINT}/../../../../../outside/secret",
        "trainyard/../secret",
        "../outside/secret",
        f"{RUN}/result.json\0",
    ],
)
def test_no_other_file_may_be_read(claim: Path, path: str) -> None:
    assert read(claim, path) is None


def replace_by_link(path: Path, target: Path) -> None:
    path.rename(path.with_name(f"{path.name}.moved"))
    path.symlink_to(target)


@pytest.mark.parametrize("part", ["trainyard", RUN, f"{RUN}/exports", EXPORT, f"{EXPORT}/config.json"])
@pytest.mark.parametrize("absolute", [True, False])
def test_link_is_not_followed(claim: Path, part: str, absolute: bool) -> None:
    path = claim / part
    target = path.with_name(f"{path.name}.moved")
    replace_by_link(path, target if absolute else Path(target.name))
    assert (claim / EXPORT / "config.json").read_bytes() == MODEL["config.json"]
    assert read(claim, f"{EXPORT}/config.json") is None


def test_listed_name_that_is_a_link_out_of_the_claim_is_not_read(claim: Path) -> None:
    replace_by_link(claim / EXPORT / "config.json", claim.parent / "outside/secret")
    assert read(claim, f"{EXPORT}/config.json") is None
    assert read(claim, f"{EXPORT}/tokenizer.json") == MODEL["tokenizer.json"]


def test_named_pipe_is_neither_read_nor_waited_for(claim: Path) -> None:
    path = claim / RUN / "result.json"
    path.unlink()
    os.mkfifo(path)
    assert read(claim, f"{RUN}/result.json") is None


ENTRY = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"files": []}',
        b'{"files": {"a": null}}',
        b'{"files": {"a": {"bytes": -1, "sha256": "x"}}}',
        b"[" * 100_000,
        json.dumps({"files": {"../../../secret": ENTRY}}).encode(),
        json.dumps({"files": {"/secret": ENTRY}}).encode(),
        json.dumps({"files": {"a": ENTRY}, "padding": "x" * (9 << 20)}).encode(),
    ],
)
@pytest.mark.parametrize("name", [f"{CHECKPOINT}/manifest.json", f"{EXPORT}/export.json"])
def test_damaged_record_lists_nothing(claim: Path, name: str, record: bytes) -> None:
    (claim / name).write_bytes(record)
    directory = name.rpartition("/")[0]
    assert Volume(claim).listing(directory) is None
    assert read(claim, name) is None
    assert read(claim, f"{directory}/config.json") is None


@contextmanager
def as_user(user: int) -> Iterator[None]:
    """Run as another user where the tests run as root; otherwise the file's mode is enough."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def test_private_file_of_another_user_has_a_sentence(claim: Path) -> None:
    base = next(folder for folder in claim.parents if folder.name.startswith("pytest-of-"))
    for folder in (claim, *claim.parents):  # the processes of xdist have directories of their own
        if folder.is_relative_to(base):
            folder.chmod(0o755)
    (claim / EXPORT / "model.safetensors").chmod(0)
    with as_user(USER), pytest.raises(UnreadableError, match="may not read trainyard/tune-1a2b/exports/merged/model"):
        read(claim, f"{EXPORT}/model.safetensors")
