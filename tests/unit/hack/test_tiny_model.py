"""The small model: unique rows, a clean held-out split, a reproducible build."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny_model import build, corpus, muon, pretrain, questions
from tiny_model.questions import Guard, Split, first_sentences, make_split, normal

pytestmark = pytest.mark.slow

SMALL = pretrain.Recipe(vocabulary=400, hidden=32, layers=1, heads=2, block=32, batch=2, steps=3)


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split(corpus.load_entries(), corpus.load_prose())


@pytest.fixture(scope="module")
def folder(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tiny") / "made"
    build.write(target, few(split), SMALL)
    return target


def few(split: Split) -> Split:
    return dataclasses.replace(split, documents=split.documents[:200])


def test_rows_come_from_the_documentation(split: Split) -> None:
    assert 1500 <= len(split.train) <= 6000
    assert 150 <= len(split.held_out) <= 600
    by_function = {row.function: row for row in split.train + split.held_out}
    row = by_function["os.path.split"]
    assert "`os.path.split(p)`" in row.question
    assert row.answer.startswith("A function of `os.path`: Split a pathname.")


def test_functions_and_answers_are_on_one_side_only(split: Split) -> None:
    assert not {r.function for r in split.train} & {r.function for r in split.held_out}
    assert not {normal(r.summary) for r in split.train} & {normal(r.summary) for r in split.held_out}
    assert not {r.question for r in split.train} & {r.question for r in split.held_out}


def test_questions_and_answers_are_unique(split: Split) -> None:
    rows = split.train + split.held_out
    assert len({normal(row.summary) for row in rows}) == len({row.function for row in rows}) == len(rows)


def test_pretraining_text_has_no_held_out_answer_or_entry(split: Split) -> None:
    text = " ".join(f" {normal(document)} " for document in split.documents)
    assert [row.function for row in split.held_out if f" {normal(row.summary)} " in text] == []
    starts = {document.split(":", 1)[0].split("(")[0] for document in split.documents}
    assert not starts & {row.function for row in split.held_out}


def test_near_copy_of_a_held_out_answer_is_dropped() -> None:
    summary = "Return the area of the given shape."
    guard = Guard([questions.Row("shapes.area", "Explain `shapes.area`.", "A function of `shapes`", summary)])
    assert guard.repeats("shapes.other", "Return the AREA of\nthe given shapes, the area of the given shape.")
    assert guard.repeats("shapes.area", "Something else entirely.")
    assert not guard.repeats("shapes.other", "Draw a shape on the screen with a pen.")
    assert guard.contains_answer("Prose. Return the area\n of the GIVEN shape!")
    assert not guard.contains_answer("Return the area of the given shapeless thing.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return the number of all\n   shapes. More is said here.", "Return the number of all shapes."),
        ("Close it. Then wait for the other side.\n\nDetails.", "Close it. Then wait for the other side."),
        ("Without a full stop", "Without a full stop"),
    ],
)
def test_answer_is_whole_sentences_of_the_first_paragraph(text: str, expected: str) -> None:
    assert first_sentences(text) == expected


def test_examples_and_tables_are_not_prose() -> None:
    assert corpus.prose("Add two\nnumbers.\n\n>>> add(1, 2)\n3\n\nNotes\n-----\nNone.") == "Add two numbers."


def test_build_writes_model_rows_and_readme(folder: Path, split: Split) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (folder / "model").iterdir()}
    names = {path.name for path in folder.iterdir()}
    assert names == {"model", "train.jsonl", "heldout.jsonl", "README.md"}
    rows = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    assert rows == [row.as_messages() for row in split.held_out]
    readme = (folder / "README.md").read_text()
    assert f"{len(split.held_out)} held-out" in readme
    assert not re.search(r"\{\w+\}", readme)


def test_template_marks_the_answer_and_its_end(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    chat = [{"role": "user", "content": "What is `x`?"}, {"role": "assistant", "content": "A thing."}]
    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "A thing.<|end|>"
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert tokenizer.apply_chat_template(chat, tokenize=False).startswith(prompt)
    assert prompt == "<|begin|><|user|>What is `x`?<|end|><|assistant|>"


def test_saved_model_loads_with_its_end_token(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert model.config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == SMALL.vocabulary


def test_build_is_reproducible(folder: Path, split: Split, tmp_path: Path) -> None:
    build.write(tmp_path / "again", few(split), SMALL)
    assert digests(tmp_path / "again") == digests(folder)


def digests(path: Path) -> dict[str, str]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("shape", [(48, 48), (96, 48), (48, 96)])
def test_muon_updates_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(muon.orthogonalised(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
