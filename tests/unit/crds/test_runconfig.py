"""RunConfig fills the blocks of the method and refuses invalid documents; shared rules: test_shared_rules.py."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainyard_crds.runconfig import RunConfig

MINIMAL: dict[str, Any] = {
    "runDirectory": "/tmp/run",
    "task": "llm",
    "model": {"source": "file:///models/tiny"},
    "dataset": {"source": "file:///data/train.jsonl"},
}


@pytest.mark.parametrize(
    ("method", "adapter", "quantization"), [("lora", True, False), ("qlora", True, True), ("full", False, False)]
)
def test_blocks_are_filled_only_if_the_method_uses_them(method: str, adapter: bool, quantization: bool) -> None:
    config = RunConfig.model_validate({**MINIMAL, "method": method})
    assert (config.adapter is not None, config.quantization is not None) == (adapter, quantization)
    assert config.optimization.learning_rate == 1e-4


@pytest.mark.parametrize(("method", "format_"), [("lora", "adapter"), ("qlora", "adapter"), ("full", "model")])
def test_default_export_follows_the_method(method: str, format_: str) -> None:
    config = RunConfig.model_validate({**MINIMAL, "method": method})
    assert [export.format for export in config.exports] == [format_]


def test_learning_rate_as_yaml_text_is_parsed() -> None:
    config = RunConfig.model_validate({**MINIMAL, "optimization": {"learningRate": "1e-4"}})
    assert config.optimization.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"exports": [{"format": "gguf"}, {"format": "gguf", "type": "f16"}]}, "names a format twice"),
        ({"exports": []}, "at least 1 item"),
        ({"dataset": {"source": "https://me@host/rows.jsonl"}}, "should match pattern"),
        ({"optimisation": {}}, "Extra inputs are not permitted"),
        ({"gpus": 2}, "processes is 1, but gpus is 2: each process trains on one GPU"),
        ({"gpus": 2, "processes": 4}, "set both to the same number, or gpus to 0"),
        ({"gpus": 2, "nodes": 2, "processes": 2}, "gpus is 2 on each of 2 nodes: each process trains on one GPU; set"),
        ({"nodes": 2, "processes": 3}, "set processes to a multiple of nodes"),
    ],
)
def test_invalid_document_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RunConfig.model_validate({**MINIMAL, **change})


def test_round_trip() -> None:
    config = RunConfig.model_validate({**MINIMAL, "method": "qlora"})
    assert RunConfig.model_validate(config.to_json()) == config
