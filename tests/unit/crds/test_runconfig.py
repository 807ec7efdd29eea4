"""RunConfig fills what the method needs and refuses what has no effect."""

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
def test_blocks_are_there_exactly_where_the_method_uses_them(method: str, adapter: bool, quantization: bool) -> None:
    config = RunConfig.model_validate({**MINIMAL, "method": method})
    assert (config.adapter is not None, config.quantization is not None) == (adapter, quantization)
    assert config.optimization.learning_rate == 1e-4


@pytest.mark.parametrize(("method", "format_"), [("lora", "adapter"), ("qlora", "adapter"), ("full", "model")])
def test_what_training_makes_is_exported_when_nothing_is_asked(method: str, format_: str) -> None:
    config = RunConfig.model_validate({**MINIMAL, "method": method})
    assert [export.format for export in config.exports] == [format_]


def test_a_learning_rate_as_yaml_text_is_a_number() -> None:
    config = RunConfig.model_validate({**MINIMAL, "optimization": {"learningRate": "1e-4"}})
    assert config.optimization.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "full", "adapter": {"rank": 8}}, "adapter has no effect with method: full"),
        ({"quantization": {}}, "quantization has no effect without method: qlora"),
        ({"dataset": {"source": "file:///d", "validation": {}}}, "exactly one of source"),
        ({"exports": [{"format": "model"}]}, "format: model is for method: full"),
        ({"method": "full", "exports": [{"format": "merged"}]}, "no adapter that could be exported or merged"),
        ({"exports": [{"format": "merged", "base": "original"}]}, "base has no effect without method: qlora"),
        ({"exports": [{"format": "gguf"}, {"format": "gguf", "type": "f16"}]}, "names a format twice"),
        ({"exports": []}, "at least 1 item"),
        ({"dataset": {"source": "https://me@host/rows.jsonl"}}, "should match pattern"),
        ({"optimisation": {}}, "Extra inputs are not permitted"),
        ({"optimization": {"optimizer": "paged_adamw8bit"}}, "paged_adamw8bit has no effect without a GPU"),
        ({"gpus": 2}, "processes is 1, but gpus is 2: each process trains on one GPU"),
        ({"gpus": 2, "processes": 4}, "set both to the same number, or gpus to 0"),
        ({"gpus": 2, "nodes": 2, "processes": 2}, "gpus is 2 on each of 2 nodes: each process trains on one GPU; set"),
        ({"nodes": 2, "processes": 3}, "set processes to a multiple of nodes"),
        (
            {"method": "full", "processes": 2, "optimization": {"optimizer": "adamw8bit"}},
            "adamw8bit cannot be spread over 2 processes",
        ),
        ({"optimization": {"recompute": "offload"}}, "recompute: offload has no effect without a GPU"),
        ({"evaluation": {"earlyStopping": {"patience": 2}}}, "earlyStopping needs held-out rows"),
        ({"evaluation": {"metric": "evalLoss"}}, "evaluation.metric needs held-out rows"),
        ({"evaluation": {"goal": "maximize"}}, "evaluation.goal has no effect without evaluation.metric"),
        ({"adapter": {"targets": ["q_proj"], "modulesToSave": ["q_proj"]}}, "both name q_proj"),
    ],
)
def test_what_has_no_effect_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RunConfig.model_validate({**MINIMAL, **change})


def test_a_document_survives_a_round_trip() -> None:
    config = RunConfig.model_validate({**MINIMAL, "method": "qlora"})
    assert RunConfig.model_validate(config.to_json()) == config
