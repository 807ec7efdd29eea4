"""A model's tokenizer is loaded as its tokenizer.json describes it, or refused with a sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.unit.trainer.families import FAMILIES
from tests.unit.trainer.families.texts import DECOMPOSED, HARD_TEXTS
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer, save_tokenizer

PIPELINE = ("normalizer", "pre_tokenizer", "model", "decoder", "post_processor", "added_tokens")


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_loading_prints_nothing(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_tokenizer(tiny_model, "tiny")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", ["{", "{}", "[]", None])
def test_damaged_tokenizer(model: Path, content: str | None) -> None:
    (model / "tokenizer_config.json").unlink()
    if content is None:
        (model / "tokenizer.json").unlink()
    else:
        (model / "tokenizer.json").write_text(content)
    with pytest.raises(NotFoundError, match="pvc://models/tiny has no tokenizer that can be loaded"):
        load_tokenizer(model, "pvc://models/tiny")


def texts_of(tokenizer: Tokenizer) -> list[str]:
    """The hard texts, and every added token inside a text, alone and between white space."""
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return [*HARD_TEXTS.values(), DECOMPOSED, *(f"a{one}b {one} c\n{one}\n{one}{one}  {one}" for one in added)]


def token_lists(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_trained_are_those_of_tokenizer_json(tmp_path: Path, name: str) -> None:
    directory = FAMILIES[name].save(tmp_path)
    stored = Tokenizer.from_file(str(directory / "tokenizer.json"))
    loaded = load_tokenizer(directory, name)
    wanted, found = json.loads(stored.to_str()), json.loads(loaded.backend_tokenizer.to_str())
    parts = [part for part in PIPELINE if wanted[part]]
    assert {part: found[part] for part in parts} == {part: wanted[part] for part in parts}
    texts = texts_of(stored)
    assert token_lists(loaded, texts) == [stored.encode(text).ids for text in texts]


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_loads_a_saved_tokenizer_as_it_was_trained_with(tmp_path: Path, name: str) -> None:
    from transformers import AutoTokenizer

    directory = FAMILIES[name].save(tmp_path / "model")
    loaded = load_tokenizer(directory, name)
    (tmp_path / "saved").mkdir()
    save_tokenizer(loaded, tmp_path / "saved")
    shutil.copyfile(directory / "config.json", tmp_path / "saved/config.json")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    texts = texts_of(loaded.backend_tokenizer)
    assert token_lists(again, texts) == token_lists(loaded, texts)
    assert (again.bos_token, again.eos_token, again.pad_token) == (loaded.bos_token, loaded.eos_token, loaded.pad_token)
    saved = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"  # known to versions 4 and 5


def test_the_class_does_not_replace_the_split_of_the_file(tmp_path: Path) -> None:
    smollm = load_tokenizer(FAMILIES["smollm"].save(tmp_path), "smollm")
    assert smollm.convert_ids_to_tokens(smollm.encode("\n\n12")) == ["\u010a\u010a", "1", "2"]


def test_special_tokens_that_only_the_class_names_are_known(tmp_path: Path) -> None:
    gpt_2 = load_tokenizer(FAMILIES["gpt_2"].save(tmp_path), "gpt-2")
    assert (gpt_2.bos_token, gpt_2.eos_token, gpt_2.pad_token) == ("<|endoftext|>", "<|endoftext|>", None)


def test_tokenizer_json_is_enough_where_the_class_is_code_of_the_model(tmp_path: Path) -> None:
    directory = FAMILIES["glm_4"].save(tmp_path)
    path = directory / "tokenizer_config.json"
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    assert load_tokenizer(directory, "own").eos_token == "<|user|>"
