"""The tokenizers of the families in a GGUF file, applied by llama.cpp itself, or refused before training."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, TokenType
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from tests.unit.trainer.families import FAMILIES
from tests.unit.trainer.families.building import SPACE
from tests.unit.trainer.families.texts import CORPUS, DECOMPOSED, HARD_TEXTS
from tests.unit.trainer.tasks.text.export.llama_cpp import LlamaCpp
from trainyard_trainer.errors import ConfigurationError, NotFoundError
from trainyard_trainer.tasks.text.export.gguf_file import check_supported, write_file
from trainyard_trainer.tasks.text.export.gguf_tokenizer import check_tokenizer, remark_on
from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer

REFUSED = {
    "bloom": "it splits text in a way that llama.cpp has no name for",
    "deepseek_v2": "it splits text in a way that llama.cpp has no name for",
    "deepseek_v3": "it splits text in a way that llama.cpp has no name for",
    "falcon": "it splits text in a way that llama.cpp has no name for",
    "gpt_oss": "it splits text in a way that llama.cpp has no name for",
    "mistral_nemo": "it splits text in a way that llama.cpp has no name for",
    "mistral_v3": "it puts a space before the first piece of a text only, and llama.cpp before every piece",
    "phi_3": r"its token <\|assistant\|> takes in white space after it",
    "phi_4": r"its token <\|endoftext\|> takes in white space before it",
}
WRITTEN = sorted(FAMILIES.keys() - REFUSED.keys())
NORMALIZING = ("command_r", "gpt_neox", "olmo", "qwen_2", "qwen_3")
UNUSED = 3
"""Rows of the embedding beyond the tokens."""


def saved(directory: Path, family: str, change: Callable[[dict[str, Any]], None] = lambda _document: None) -> Path:
    """A family's tokenizer, changed."""
    FAMILIES[family].save(directory)
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return directory


def written(directory: Path, name: str = "the model") -> Path:
    """A GGUF file of a tiny model with the directory's tokenizer."""
    tokenizer = load_tokenizer(directory, name)
    config = LlamaConfig(
        vocab_size=max(tokenizer.get_vocab().values()) + 1 + UNUSED,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    config.save_pretrained(directory)
    check_supported(directory, name)
    weights = LlamaForCausalLM(config).state_dict()
    write_file(
        [(None, iter(weights.items()))],  # type: ignore[list-item]
        {tensor: tuple(value.shape) for tensor, value in weights.items()},
        directory,
        directory / "model.gguf",
        tokenizer=tokenizer,
        name=name,
        type_="f32",
        poll=lambda: None,
    )
    return directory / "model.gguf"


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The GGUF file of a family, written once."""
    return lru_cache(lambda family: written(FAMILIES[family].save(tmp_path_factory.mktemp(family))))


def with_added_tokens(tokenizer: Any) -> list[str]:
    """Texts with every added token inside a text, alone and between white space.

    Runs of SentencePiece's sign are left out: in a text of a user the sign itself does not occur.
    """
    added = [token.content for token in tokenizer.backend_tokenizer.get_added_tokens_decoder().values()]
    return [f"a{one}b {one} c\n{one}\n{one}{one}  {one}" for one in added if SPACE * 2 not in one]


def fields_of(path: Path) -> dict[str, Any]:
    fields = GGUFReader(path).fields
    return {name.removeprefix("tokenizer.ggml."): field.contents() for name, field in fields.items()}


@pytest.mark.parametrize("family", WRITTEN)
def test_llama_cpp_makes_the_tokens_of_training(
    file_of: Callable[[str], Path], llama_cpp: LlamaCpp, family: str
) -> None:
    path = file_of(family)
    tokenizer = load_tokenizer(path.parent, family)
    texts = [*HARD_TEXTS.values(), *CORPUS, *with_added_tokens(tokenizer)]
    for special in (False, True):
        wanted = [tokenizer.encode(text, add_special_tokens=special) for text in texts]
        found = llama_cpp.tokenize(path, texts, special=special)
        assert [pair for pair in zip(texts, found, wanted, strict=True) if pair[1] != pair[2]] == []


@pytest.mark.parametrize("family", REFUSED)
def test_tokenizer_that_llama_cpp_does_not_reproduce_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(ConfigurationError, match=REFUSED[family]) as caught:
        written(FAMILIES[family].save(tmp_path), family)
    assert caught.value.message.startswith(f"The tokenizer of {family} cannot be written as gguf: ")
    assert caught.value.advice.startswith("Leave gguf out of spec.exports.")


WORDS = st.text(max_size=6, alphabet=st.characters(exclude_categories=["Cs", "Cn", "Co"], max_codepoint=0x1FFFF))
PARTS = st.sampled_from([*" ".join(CORPUS).split(" "), "\n", "\r\n", "\t", "  ", "'S", "12345"]) | WORDS


@pytest.mark.parametrize("family", ["gpt_2", "llama_2", "llama_3", "qwen_2", "smollm", "yi"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(parts=st.lists(PARTS, min_size=1, max_size=8), joint=st.sampled_from(["", " "]))
@example(parts=["\n\n", "1"], joint="")
def test_llama_cpp_makes_the_tokens_of_training_for_any_text(
    file_of: Callable[[str], Path], llama_cpp: LlamaCpp, family: str, parts: list[str], joint: str
) -> None:
    from unicodedata import normalize

    text = normalize("NFC", joint.join(parts))
    tokenizer = load_tokenizer(file_of(family).parent, family)
    wanted = tokenizer.encode(text, add_special_tokens=False)
    assert llama_cpp.tokenize(file_of(family), [text]) == [wanted]


@pytest.mark.parametrize("family", WRITTEN)
def test_text_that_llama_cpp_does_not_normalise_is_named(
    file_of: Callable[[str], Path], llama_cpp: LlamaCpp, family: str
) -> None:
    path = file_of(family)
    tokenizer = load_tokenizer(path.parent, family)
    same = llama_cpp.tokenize(path, [DECOMPOSED]) == [tokenizer.encode(DECOMPOSED, add_special_tokens=False)]
    remark = remark_on(tokenizer)
    assert (same, remark is None) == (family not in NORMALIZING, family not in NORMALIZING)
    assert remark is None or "Unicode form NFC" in remark


def test_tokens_keep_number_and_type(file_of: Callable[[str], Path]) -> None:
    found = fields_of(file_of("llama_2"))
    tokenizer = load_tokenizer(file_of("llama_2").parent, "llama_2")
    size = len(tokenizer)
    assert found["tokens"][:size] == tokenizer.convert_ids_to_tokens(range(size))
    assert len(found["tokens"]) == len(found["scores"]) == len(found["token_type"]) == size + UNUSED
    assert (found["model"], found["pre"], found["add_space_prefix"]) == ("llama", "default", True)
    assert (found["bos_token_id"], found["eos_token_id"], found["unknown_token_id"]) == (1, 2, 0)
    assert (found["add_bos_token"], found["add_eos_token"]) == (True, False)
    assert "merges" not in found
    kinds = {token: TokenType(kind) for token, kind in zip(found["tokens"], found["token_type"], strict=True)}
    assert (kinds["<unk>"], kinds["<s>"], kinds["<0x0A>"]) == (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.BYTE)
    assert (kinds["e"], kinds[found["tokens"][-1]]) == (TokenType.NORMAL, TokenType.UNUSED)


def test_tokens_around_a_text_are_those_of_training(file_of: Callable[[str], Path]) -> None:
    found = fields_of(file_of("qwen_2"))
    assert (found["add_bos_token"], found["add_eos_token"]) == (False, False)
    assert fields_of(file_of("llama_3"))["add_bos_token"] is True


@pytest.mark.parametrize("name", ["my phi-3 bot", "Phi3", "modern-bert"])
def test_the_name_of_a_job_does_not_change_how_llama_cpp_reads_tokens(
    tmp_path: Path, llama_cpp: LlamaCpp, name: str
) -> None:
    path = written(FAMILIES["llama_2"].save(tmp_path), name)
    tokenizer = load_tokenizer(tmp_path, name)
    texts = with_added_tokens(tokenizer)
    assert llama_cpp.tokenize(path, texts) == [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def model_of(document: dict[str, Any], **changes: Any) -> None:
    document["model"] |= changes


def without(document: dict[str, Any], token: str) -> None:
    del document["model"]["vocab"][token]


DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    ("family", "change", "sentence"),
    [
        ("llama_2", lambda one: one.update(normalizer={"type": "NFKC"}), "it changes text by NFKC"),
        ("llama_2", lambda one: one.update(normalizer=None), "it keeps spaces as they are"),
        ("llama_2", lambda one: one.update(pre_tokenizer=DIGITS), "it changes text by Digits"),
        ("llama_2", lambda one: model_of(one, end_of_word_suffix="</w>"), "it uses end_of_word_suffix"),
        ("llama_2", lambda one: without(one, "<0x41>"), "it has no token <0x41>"),
        ("llama_2", lambda one: one["model"]["merges"].pop(9), "its merges do not join .* which llama.cpp does"),
        ("llama_2", lambda one: one["added_tokens"][1].update(normalized=True), "<s> is looked for in the normalised"),
        ("gpt_2", lambda one: one.update(normalizer={"type": "Lowercase"}), "it changes text by Lowercase"),
        ("gpt_2", lambda one: one["pre_tokenizer"].update(add_prefix_space=True), "has no name for"),
        ("gpt_2", lambda one: model_of(one, dropout=0.1), "it uses dropout"),
        ("gpt_2", lambda one: model_of(one, ignore_merges=True), "has no name for"),
        ("gpt_2", lambda one: one["added_tokens"][0].update(single_word=True), "is found only as a word of its own"),
        ("qwen_2", lambda one: one["pre_tokenizer"]["pretokenizers"].insert(0, DIGITS), "has no name for"),
    ],
)
def test_pipeline_that_differs_in_one_part_is_refused(
    tmp_path: Path, family: str, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        written(saved(tmp_path, family, change))


def without_sign(document: dict[str, Any], sign: str) -> None:
    model = document["model"]
    model["merges"] = [pair for pair in model["merges"] if sign not in "".join(pair)]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if sign not in token}


def test_vocabulary_may_lack_bytes_that_no_text_has(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    path = written(saved(tmp_path, "smollm", lambda one: without_sign(one, "\u00c0")))
    assert llama_cpp.tokenize(path, ["A"]) == [load_tokenizer(tmp_path, "smollm").encode("A")]


def test_vocabulary_without_a_byte_of_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it has no token for the byte 0x41"):
        written(saved(tmp_path, "smollm", lambda one: without_sign(one, "A")))


def test_unigram_is_refused(tmp_path: Path) -> None:
    from tokenizers import models

    Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigurationError, match="it is a Unigram model, whose texts"):
        written(tmp_path)


def test_other_tokens_around_a_text_are_refused(tmp_path: Path) -> None:
    directory = FAMILIES["llama_2"].save(tmp_path)
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bos_token": "</s>"}))
    with pytest.raises(ConfigurationError, match="it puts <s> around a text"):
        written(directory)


def test_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    directory = FAMILIES["llama_3"].save(tmp_path)
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|begin_of_text|>"}))
    tokenizer = load_tokenizer(directory, "llama_3")
    with pytest.raises(ConfigurationError, match="it names no end of text"):
        check_tokenizer(tokenizer, {"vocab_size": 1000}, "llama_3")
    check_tokenizer(tokenizer, {"vocab_size": 1000, "eos_token_id": [2, 3]}, "llama_3")


def test_names_of_unused_rows_are_those_of_no_token(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    directory = FAMILIES["gpt_2"].save(tmp_path)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("[PAD0]"), AddedToken("[PAD2]")])
    tokenizer.save(str(directory / "tokenizer.json"))
    path = written(directory)
    assert fields_of(path)["tokens"][-UNUSED:] == ["[PAD1]", "[PAD3]", "[PAD4]"]
    assert llama_cpp.tokenize(path, ["[PAD0]"]) == [[tokenizer.token_to_id("[PAD0]")]]


@pytest.mark.parametrize("place", ["tokenizer.json", "tokenizer_config.json"])
def test_token_beyond_the_embedding_is_refused(tmp_path: Path, place: str) -> None:
    directory = FAMILIES["llama_3"].save(tmp_path)
    size = len(load_tokenizer(directory, "llama_3"))
    if place == "tokenizer.json":
        tokenizer = Tokenizer.from_file(str(directory / place))
        tokenizer.add_special_tokens([AddedToken("[PAD]", special=True)])
        tokenizer.save(str(directory / place))
    else:
        config = json.loads((directory / place).read_text())
        (directory / place).write_text(json.dumps({**config, "pad_token": "[PAD]"}))
    tokenizer = load_tokenizer(directory, "llama_3")
    sentence = rf"its token \[PAD\] has the number {size}, but the model has embeddings for {size} tokens"
    with pytest.raises(ConfigurationError, match=sentence):
        check_tokenizer(tokenizer, {"vocab_size": size}, "llama_3")
    check_tokenizer(tokenizer, {"vocab_size": size + 1}, "llama_3")


def test_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(NotFoundError, match="the model has no tokenizer that can be loaded"):
        check_supported(tmp_path, "the model")
