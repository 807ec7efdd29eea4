"""SentencePiece tokenizers in a GGUF file: read back, and applied as llama.cpp applies them."""

import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, GGUFWriter, TokenType
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.unit.trainer import tiny
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.text.export.gguf_tokenizer import check_tokenizer, write_tokenizer

SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = [f"{question} {subject}" for question in tiny.QUESTIONS for subject in tiny.SUBJECTS]
VOCABULARY = 500
KINDS = {
    # How Llama 2 writes its tokenizer.json, how newer versions of the libraries do, and how Gemma does.
    "prepend": (normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]), None),
    "metaspace": (None, pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)),
    "gemma": (normalizers.Replace(" ", SPACE), pre_tokenizers.Split(" ", "merged_with_previous")),
}


@lru_cache
def sentencepiece(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    normalizer, splitter = KINDS[kind]
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never") if splitter is None else splitter
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *BYTES]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [one for one in document["added_tokens"] if one["content"] not in BYTES]
    if splitter is None:
        document["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


def written(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True})
    )
    check_tokenizer(directory, "the model")
    writer = GGUFWriter(directory / "tokenizer.gguf", "llama")
    write_tokenizer(writer, directory, VOCABULARY)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = GGUFReader(directory / "tokenizer.gguf").fields
    return {name.removeprefix("tokenizer.ggml."): field.contents() for name, field in fields.items()}


def as_llama_cpp(found: dict[str, Any], text: str) -> list[int]:
    """The SPM tokenizer of llama.cpp: neighbours are joined while that gives a token, the best score first."""
    ids = {token: number for number, token in enumerate(found["tokens"])}
    symbols = list(((" " if found["add_space_prefix"] else "") + text).replace(" ", SPACE))
    while True:
        pairs = [a + b for a, b in pairwise(symbols)]
        joined = [(-found["scores"][ids[pair]], at) for at, pair in enumerate(pairs) if pair in ids]
        if not joined:
            break
        _, at = min(joined)
        symbols[at : at + 2] = [pairs[at]]
    return [one for symbol in symbols for one in ([ids[symbol]] if symbol in ids else bytes_of(ids, symbol))]


def bytes_of(ids: dict[str, int], symbol: str) -> list[int]:
    return [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_keep_id_and_type(tmp_path: Path, kind: str) -> None:
    tokenizer = sentencepiece(kind)
    found = written(tmp_path, tokenizer)
    size = tokenizer.get_vocab_size()
    assert found["tokens"][:size] == [tokenizer.id_to_token(number) for number in range(size)]
    assert len(found["tokens"]) == len(found["scores"]) == len(found["token_type"]) == VOCABULARY
    assert (found["model"], found["pre"], found["add_space_prefix"]) == ("llama", "default", kind != "gemma")
    assert (found["bos_token_id"], found["eos_token_id"], found["unknown_token_id"]) == (1, 2, 0)
    assert found["add_bos_token"] is True
    assert "merges" not in found
    kinds = dict(zip(found["tokens"], found["token_type"], strict=True))
    wanted = {
        "<unk>": TokenType.CONTROL,
        "<s>": TokenType.CONTROL,
        "<0x0A>": TokenType.BYTE,
        "<tool>": TokenType.USER_DEFINED,
    }
    assert {token: TokenType(kinds[token]) for token in wanted} == wanted | {"<unk>": TokenType.UNKNOWN}
    assert kinds["e"] == TokenType.NORMAL
    assert found["token_type"][-1] == TokenType.UNUSED


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return {kind: written(tmp_path_factory.mktemp(kind), sentencepiece(kind)) for kind in KINDS}


WORDS = st.sampled_from(" ".join(TEXTS).split()) | st.text(max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@given(words=st.lists(WORDS, min_size=1, max_size=8))
def test_llama_cpp_makes_tokens_of_training(files: dict[str, dict[str, Any]], kind: str, words: list[str]) -> None:
    text = " ".join(words)
    assume(text and not any(special in text for special in ("<unk>", "<s>", "</s>", "<tool>")))
    assume(kind != "metaspace" or not text.startswith((" ", SPACE)))
    assert as_llama_cpp(files[kind], text) == sentencepiece(kind).encode(text).ids


def changed(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sentencepiece("prepend").to_str())
    model = changes.pop("model", {})
    return {**document, **changes, "model": {**document["model"], **model}}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"model": {"type": "Unigram"}}, "it is a Unigram model, whose texts llama.cpp would split differently"),
        ({"model": {"type": "WordPiece"}}, "it is of the type WordPiece"),
        (changed(normalizer={"type": "NFKC"}), "it changes text by NFKC"),
        (changed(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "b"}), "by Replace"),
        (changed(pre_tokenizer={"type": "Digits", "individual_digits": True}), "it changes text by Digits"),
        (changed(model={"end_of_word_suffix": "</w>"}), "it uses end_of_word_suffix"),
        (changed(model={"vocab": {"<unk>": 0}}), "it has no token <0x00>"),
        (changed(model={"byte_fallback": False}), "it splits text in a way that llama.cpp has no name for"),
    ],
)
def test_tokenizer_that_llama_cpp_does_not_reproduce_is_refused(
    tmp_path: Path, document: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        check_tokenizer(tmp_path, "the model")
    assert caught.value.advice.startswith("Leave gguf out of spec.exports.")


def test_missing_tokenizer_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the model has no tokenizer\.json"):
        check_tokenizer(tmp_path, "the model")
