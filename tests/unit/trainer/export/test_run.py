"""A whole run of the trainer's command, from object storage to object storage."""

import json
from pathlib import Path

import pytest

from tests.unit.trainer import tiny
from tests.unit.trainer.sources.s3_server import Storage
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.sources.remote_files import open_bucket
from trainyard_trainer.sources.s3 import Bucket
from trainyard_trainer.stop import StopFlag

pytestmark = pytest.mark.slow


def test_run_from_bucket_to_bucket(
    tmp_path: Path, tiny_model: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(24))
    for name, value in storage.environ.items():
        monkeypatch.setenv(name, value)
    names = [path.name for path in tiny_model.iterdir()]
    Bucket.open("s3://models/tiny", storage.s3).upload(tiny_model, names, {}, lambda _share: None, lambda: None)
    config = RunConfig.model_validate(
        {
            "runDirectory": str(tmp_path / "run"),
            "task": "llm",
            "method": "qlora",
            "model": {"source": "s3://models/tiny"},
            "dataset": {"source": f"file://{rows}"},
            "optimization": {"precision": "fp32", "learningRate": 0.01, "maxSteps": 4},
            "llm": {"maxLength": 128},
            "exports": [
                {"format": "adapter"},
                {"format": "merged", "base": "dequantized", "destination": "s3://models/copied/merged"},
                {"format": "gguf", "type": "f16", "destination": "s3://models/copied/gguf"},
            ],
            "s3": {"endpoint": storage.s3.endpoint},
        }
    )
    termination = bootstrap.train(config, stop=StopFlag(), environ={})
    assert termination.exit_code == 0, termination.message
    bucket = open_bucket("models", storage.s3, storage.environ)
    copied = {file.key: file.bytes for file in bucket.list("copied")}
    exports = tmp_path / "run/exports"
    for folder in ("merged", "gguf"):
        assert {
            f"copied/{folder}/{path.name}": path.stat().st_size for path in (exports / folder).iterdir()
        }.items() <= (copied.items())
    adapter, merged, gguf = termination.exports
    assert (adapter.destination, merged.destination) == (None, "s3://models/copied/merged")
    assert merged.message is not None
    assert merged.message.startswith("Its logits differ from the trained model's by")
    record = json.loads((exports / "merged/export.json").read_text())
    assert merged.bytes == sum(entry["bytes"] for entry in record["files"].values())
    assert record["facts"]["baseModel"]["source"] == "s3://models/tiny"
    assert gguf.digest != merged.digest
    assert len(termination.to_message().encode()) <= 4096
    assert len(json.loads(termination.to_message())["exports"]) == 3
