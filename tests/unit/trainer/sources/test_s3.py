"""Models, rows and exports in object storage, against moto's server."""

from pathlib import Path

import pytest

from tests.unit.trainer import toy
from tests.unit.trainer.resolved import ResolvedMemory
from tests.unit.trainer.sources.s3_server import Storage, nothing, upload
from trainyard_crds.runconfig import RunModelSource, RunS3
from trainyard_trainer.checkpoint.files import sha256_of
from trainyard_trainer.errors import DataError, NotFoundError, NotPermittedError, SourceError, StopRequested
from trainyard_trainer.sources.remote_files import RemoteFile, open_bucket
from trainyard_trainer.sources.resolve import Access, resolve_file, resolve_model
from trainyard_trainer.sources.s3 import Bucket


def access(storage: Storage, cache: Path) -> Access:
    return Access(s3=storage.s3, environ=storage.environ, cache=cache)


MODEL = {"config.json": b"{}", "model.safetensors": b"w" * (9 << 20), "evil.bin": b"pickle", "x.py": b"code"}


def test_model_round_trip_fetches_model_files_only(storage: Storage, tmp_path: Path) -> None:
    upload(storage, "s3://models/tiny-one", MODEL, tmp_path / "up")
    shares: list[float] = []
    source, memory = RunModelSource(source="s3://models/tiny-one"), ResolvedMemory()
    options = Access(s3=storage.s3, environ=storage.environ, cache=tmp_path / "cache", progress=shares.append)
    model = resolve_model(source, memory, nothing, options)
    found = {path.name: path.read_bytes() for path in model.path.iterdir() if not path.name.startswith(".")}
    assert found == {name: MODEL[name] for name in ("config.json", "model.safetensors")}
    assert model.reference == "s3://models/tiny-one"
    assert shares[-1] == 100
    assert shares == sorted(shares)


def test_model_changed_since_the_run_started_is_refused(storage: Storage, tmp_path: Path) -> None:
    source, memory = RunModelSource(source="s3://models/moving"), ResolvedMemory()
    upload(storage, "s3://models/moving", {"config.json": b"{}", "model.safetensors": b"1"}, tmp_path / "up")
    resolve_model(source, memory, nothing, access(storage, tmp_path / "cache"))
    resolve_model(source, memory, nothing, access(storage, tmp_path / "cache"))
    upload(storage, "s3://models/moving", {"model.safetensors": b"2"}, tmp_path / "up")
    with pytest.raises(DataError, match="The files of the model s3://models/moving changed since the run started"):
        resolve_model(source, memory, nothing, access(storage, tmp_path / "cache"))


def test_corrupt_download_is_removed(storage: Storage, tmp_path: Path) -> None:
    remote = open_bucket("models", storage.s3, storage.environ)
    remote.write("wrong/rows.jsonl", iter([b"rows"]), "0" * 64)
    with pytest.raises(SourceError, match=r"s3://models/wrong/rows.jsonl was corrupted during the download"):
        resolve_file("s3://models/wrong/rows.jsonl", ResolvedMemory(), nothing, access(storage, tmp_path))
    assert not list(tmp_path.rglob("rows*"))


def test_error_messages_contain_no_secret(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"There is no s3://models/none\.jsonl"):
        resolve_file("s3://models/none.jsonl", ResolvedMemory(), nothing, access(storage, tmp_path))
    with pytest.raises(NotFoundError, match="There is no model in s3://models/none"):
        resolve_model(RunModelSource(source="s3://models/none"), ResolvedMemory(), nothing, access(storage, tmp_path))
    wrong = {**storage.environ, "AWS_SECRET_ACCESS_KEY": "hunter2"}
    for environ in (wrong, {**wrong, "AWS_ACCESS_KEY_ID": "AKIANOBODY"}):
        options = Access(s3=storage.s3, environ=environ, cache=tmp_path)
        with pytest.raises(NotPermittedError, match="does not permit access to s3://models/") as caught:
            resolve_model(RunModelSource(source="s3://models/tiny-one"), ResolvedMemory(), nothing, options)
        assert "spec.s3.credentialsSecret" in caught.value.advice
        assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)


def test_unreachable_server(storage: Storage, tmp_path: Path) -> None:
    gone = Access(s3=RunS3(endpoint="http://127.0.0.1:9"), environ=storage.environ, cache=tmp_path)
    with pytest.raises(SourceError, match=r"s3://models/rows.jsonl cannot be reached: [^{}]*$"):
        resolve_file("s3://models/rows.jsonl", ResolvedMemory(), nothing, gone)


def test_upload_skips_existing_files_and_polls_for_a_stop(storage: Storage, tmp_path: Path) -> None:
    files = {"a": b"a" * (17 << 20), "b": b"b"}
    polls: list[int] = []

    def stop_in_the_middle() -> None:
        polls.append(1)
        if len(polls) >= 5:
            raise StopRequested("Stopped on request.")

    upload(storage, "s3://models/partly", {"b": b"b"}, tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    bucket = Bucket.open("s3://models/partly", storage.s3, storage.environ)
    with pytest.raises(StopRequested):
        bucket.upload(tmp_path, list(files), {}, nothing, stop_in_the_middle)
    remote = open_bucket("models", storage.s3, storage.environ)
    assert [file.key for file in remote.list("partly")] == ["partly/b"]
    bucket.upload(tmp_path, list(files), {}, nothing, nothing)
    assert remote.look_up("partly/a") == RemoteFile(
        "partly/a", 17 << 20, remote.look_up("partly/a").tag, sha256_of(tmp_path / "a")
    )
    polls.clear()
    bucket.upload(tmp_path, list(files), {}, nothing, lambda: polls.append(1))
    assert polls == []


def test_finished_run_uploads_and_reports_its_export(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in storage.environ.items():
        monkeypatch.setenv(name, value)
    config = toy.run_config(
        tmp_path / "run",
        exports=[{"format": "model", "destination": "s3://models/out/toy"}],
        s3={"endpoint": storage.s3.endpoint},
    )
    [export] = toy.train_toy(config, toy.ToyTask()).exports
    assert (export.format, export.destination, export.message) == ("model", "s3://models/out/toy", "Made as model.")
    remote = open_bucket("models", storage.s3, storage.environ)
    keys = [file.key.removeprefix("out/toy/") for file in remote.list("out/toy")]
    assert keys == sorted(path.name for path in (tmp_path / "run/exports/model").iterdir())
    assert "export.json" in keys
