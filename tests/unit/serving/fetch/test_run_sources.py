"""Files of runs from a real artifact reader: verified, resumed, waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.serving.exports import write_export
from tests.unit.serving.fetch.sources import checkpoint, export, sources
from tests.unit.serving.reader_process import Reader
from tests.unit.serving.runs import ADAPTER, CHECKPOINT, EXPORT, MODEL, write_checkpoint
from tests.unit.serving.service_accounts import Signer
from trainyard_serving.fetch.failures import UnfitError
from trainyard_serving.fetch.selection import adapter_files
from trainyard_trainer.errors import DataError, NotFoundError, NotPermittedError, SourceError, StorageError

LARGE = {**MODEL, "model.safetensors": bytes(range(256)) * 8192}


def never(_seconds: float) -> None:
    pytest.fail("the same would happen again")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_adapter_of_a_checkpoint(reader: Reader, tmp_path: Path) -> None:
    digest = write_checkpoint(reader.claim)
    found = sources(reader, tmp_path / "cache").fetch(checkpoint(digest), adapter_files)
    assert contents(found) == {
        name: ADAPTER[f"weights/{name}"] for name in ("adapter_config.json", "adapter_model.safetensors")
    }


def test_exported_model(reader: Reader, tmp_path: Path) -> None:
    digest = write_export(reader.claim, {**MODEL, "README.md": b"x"})
    assert contents(sources(reader, tmp_path / "cache").fetch(export(digest))) == MODEL


def test_complete_files_are_fetched_once(reader: Reader, tmp_path: Path) -> None:
    digest = write_export(reader.claim)
    first = sources(reader, tmp_path / "cache").fetch(export(digest))
    for name in MODEL:
        (reader.claim / EXPORT / name).unlink()
    again = sources(reader, tmp_path / "cache").fetch(export(digest))
    assert (again, contents(again)) == (first, MODEL)


def test_other_digest_than_recorded_is_refused(reader: Reader, tmp_path: Path) -> None:
    found = write_checkpoint(reader.claim)
    recorded = f"sha256:{'0' * 64}"
    with pytest.raises(DataError, match=f"has the digest {found}, and {recorded} was recorded"):
        sources(reader, tmp_path / "cache").fetch(checkpoint(recorded), adapter_files)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("change", [lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: data[:-1] + b"!"])
def test_changed_content_is_refused(reader: Reader, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    digest = write_export(reader.claim)
    path = reader.claim / EXPORT / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(SourceError, match="was corrupted during the download"):
        sources(reader, tmp_path / "cache").fetch(export(digest))
    assert not [path for path in (tmp_path / "cache").rglob("*") if "safetensors" in path.name]


def partial_file(cache: Path, directory: Path, content: bytes) -> None:
    """Write the beginning of a download, as a killed process leaves it."""
    path = cache / directory.name / "model.safetensors.part"
    (cache / directory.name / "model.safetensors").unlink()
    path.write_bytes(content)


def test_interrupted_download_is_resumed(reader: Reader, tmp_path: Path) -> None:
    digest, cache = write_export(reader.claim, LARGE), tmp_path / "cache"
    directory = sources(reader, cache).fetch(export(digest))
    partial_file(cache, directory, LARGE["model.safetensors"][:1_000_000])
    assert contents(sources(reader, cache).fetch(export(digest))) == LARGE

    # The part that is there stays: a damaged one is noticed at the end, removed, and fetched again.
    partial_file(cache, directory, b"x" * 1_000_000)
    with pytest.raises(SourceError, match="was corrupted"):
        sources(reader, cache).fetch(export(digest))
    assert contents(sources(reader, cache).fetch(export(digest))) == LARGE


def test_file_that_is_shorter_than_recorded_ends_with_a_sentence(reader: Reader, tmp_path: Path) -> None:
    digest = write_export(reader.claim, LARGE)
    (reader.claim / EXPORT / "model.safetensors").write_bytes(b"short")
    with pytest.raises(SourceError, match=r"HTTP 416: The range lies outside the file, which has 5 bytes"):
        sources(reader, tmp_path / "cache").fetch(export(digest))


def test_reader_that_is_still_starting_is_waited_for(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "claim", tmp_path / "secrets")
    waits: list[float] = []
    digest = write_checkpoint(reader.claim)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            reader.start()
            reader.wait_until_serving()

    try:
        found = sources(reader, tmp_path / "cache", sleep).fetch(checkpoint(digest), adapter_files)
    finally:
        reader.stop()
    assert waits == [1, 2, 4]
    assert len(contents(found)) == 2


def test_wait_for_a_reader_ends(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "claim", tmp_path / "secrets")
    waits: list[float] = []
    with pytest.raises(SourceError, match=f"The artifact reader {reader.address} cannot be reached: .*refused"):
        sources(reader, tmp_path / "cache", waits.append).fetch(checkpoint(None))
    assert 60 <= sum(waits) <= 70
    assert max(waits) == 10


@pytest.mark.parametrize("late", ["authorities", "token_file"])
def test_credentials_that_appear_late_are_waited_for(reader: Reader, tmp_path: Path, late: str) -> None:
    path: Path = getattr(reader, late)
    digest, content = write_checkpoint(reader.claim), path.read_bytes()
    path.unlink()

    def appear(_seconds: float) -> None:
        path.write_bytes(content)

    assert sources(reader, tmp_path / "cache", appear).fetch(checkpoint(digest), adapter_files).is_dir()


def test_credentials_that_do_not_appear_have_a_sentence(reader: Reader, tmp_path: Path) -> None:
    reader.token_file.unlink()
    with pytest.raises(SourceError, match=f"no credentials for the artifact reader yet: {reader.token_file}: No such"):
        sources(reader, tmp_path / "cache").fetch(checkpoint(None))


def test_expired_token_is_read_again(reader: Reader, tmp_path: Path) -> None:
    digest = write_checkpoint(reader.claim)
    reader.token_file.write_text(reader.signer.token(exp=1))

    def renew(_seconds: float) -> None:
        reader.token_file.write_text(reader.signer.token())

    assert sources(reader, tmp_path / "cache", renew).fetch(checkpoint(digest), adapter_files).is_dir()


def test_token_of_another_namespace_is_not_tried_again(reader: Reader, tmp_path: Path) -> None:
    reader.token_file.write_text(reader.signer.token("other"))
    with pytest.raises(NotPermittedError, match="A token of namespace other does not permit reading in team"):
        sources(reader, tmp_path / "cache", never).fetch(checkpoint(None))


def test_certificate_of_another_authority_is_refused(reader: Reader, tmp_path: Path) -> None:
    other = Reader(tmp_path / "claim", tmp_path / "other")
    reader.authorities.write_bytes(other.authorities.read_bytes())
    with pytest.raises(SourceError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
        sources(reader, tmp_path / "cache").fetch(checkpoint(None))


def test_deleted_checkpoint(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=f"The run's volume has no artifact at {CHECKPOINT}"):
        sources(reader, tmp_path / "cache", never).fetch(checkpoint(None))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"weights/adapter_config.json": b"{}", "weights/adapter_model.bin": b"pickle"}, "PickledAdapter"),
        ({"weights/adapter_model.safetensors": b"x"}, "MissingFile"),
        ({"weights/config.json": b"{}", "weights/model.safetensors": b"x"}, "MissingFile"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, "MissingFile"),
        ({"weights/in/adapter_config.json": b"{}", "weights/in/adapter_model.safetensors": b"x"}, "MissingFile"),
    ],
)
def test_checkpoint_without_an_adapter(reader: Reader, tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    digest = write_checkpoint(reader.claim, files)
    with pytest.raises(UnfitError) as unfit:
        sources(reader, tmp_path / "cache").fetch(checkpoint(digest), adapter_files)
    assert unfit.value.reason == reason


def test_checkpoint_without_a_model(reader: Reader, tmp_path: Path) -> None:
    digest = write_checkpoint(reader.claim, {"state/optimizer.safetensors": b"x"})
    with pytest.raises(NotFoundError, match=r"There is no model in pvc://claim/trainyard/tune-1a2b/checkpoints/step-7"):
        sources(reader, tmp_path / "cache").fetch(checkpoint(digest))


def test_key_that_was_replaced_is_waited_for(reader: Reader, tmp_path: Path) -> None:
    """The API server signs with a new key; the reader that starts next knows it."""
    reader.token_file.write_text(Signer("new").token())
    waits: list[float] = []
    with pytest.raises(SourceError, match=r"HTTP 401: The token is not signed by this cluster"):
        sources(reader, tmp_path / "cache", waits.append).fetch(checkpoint(None))
    assert waits


def test_cache_that_cannot_be_written_has_a_sentence(reader: Reader, tmp_path: Path) -> None:
    digest = write_export(reader.claim)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="could not be written"):
        sources(reader, tmp_path / "cache").fetch(export(digest))
