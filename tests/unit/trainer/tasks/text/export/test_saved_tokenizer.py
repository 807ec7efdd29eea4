"""What a run saves has the pipeline it was trained with, also where the model's class would replace it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.unit.trainer.tasks.text.export.trained import save_family, trained

TEXT = "what is the colour of the red fox"


def split_under_gpt_2(directory: Path) -> Path:
    """A tiny model whose tokenizer_config.json names GPT-2's class, and whose tokenizer.json has a split of its own."""
    save_family(directory, "llama")
    path = directory / "tokenizer.json"
    document: dict[str, Any] = json.loads(path.read_text())
    split = {"type": "Split", "pattern": {"String": "e"}, "behavior": "Isolated", "invert": False}
    parts = [split, document["pre_tokenizer"]]
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    path.write_text(json.dumps(document))
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "GPT2Tokenizer"}))
    return directory


@pytest.mark.parametrize(("method", "format_"), [("lora", "adapter"), ("lora", "merged"), ("full", "model")])
def test_exports_have_the_split_of_tokenizer_json(tmp_path: Path, method: str, format_: str) -> None:
    model = split_under_gpt_2(tmp_path / "model")
    changes = {} if method == "lora" else {"adapter": None}
    run = trained(tmp_path, model, method=method, **changes)
    run.export(tmp_path / "out", format=format_)
    assert loaded_split(tmp_path / "out") == split_of(model)
    if method == "full":
        assert loaded_split(run.weights) == split_of(model)  # a checkpoint


def split_of(directory: Path) -> list[str]:
    from tokenizers import Tokenizer

    found: list[str] = Tokenizer.from_file(str(directory / "tokenizer.json")).encode(TEXT).tokens
    return found


def loaded_split(directory: Path) -> list[str]:
    found: list[str] = AutoTokenizer.from_pretrained(directory).tokenize(TEXT)
    return found
