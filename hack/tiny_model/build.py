"""Build of the output folder: tokenizer, pre-trained model, instruction rows and a README."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from tiny_model import corpus, pretrain, questions, readme, tokenizer


def build(folder: Path) -> None:
    """Write `model/` with its tokenizer, `train.jsonl`, `heldout.jsonl` and `README.md` into `folder`."""
    torch.set_num_threads(1)
    started = time.monotonic()
    print("tiny model: reading documentation strings, about 10 s", flush=True)
    write(folder, questions.make_split(corpus.load_entries(), corpus.load_prose()), pretrain.Recipe())
    print(f"tiny model: wrote {folder} in {time.monotonic() - started:.0f} s", flush=True)


def write(folder: Path, split: questions.Split, recipe: pretrain.Recipe) -> None:
    """Train a tokenizer and a model on the documents of the split and write all files."""
    tokens = tokenizer.train_tokenizer(split.documents, recipe.vocabulary, recipe.context)
    model = pretrain.new_model(recipe, tokens)
    blocks = pretrain.pack(split.documents, tokens, recipe)
    facts = {
        "parameters": f"{model.num_parameters() / 1e6:.1f}M",
        "megabytes": f"{sum(map(len, split.documents)) / 1e6:.1f}",
        "tokens": f"{recipe.steps * recipe.batch * recipe.block / 1e3:.0f}k",
        "train": str(len(split.train)),
        "held_out": str(len(split.held_out)),
    }
    print(
        "tiny model: pre-training {parameters} parameters on {megabytes} MB of Python documentation"
        " ({tokens} tokens), 2 to 3 minutes".format(**facts),
        flush=True,
    )
    pretrain.pretrain(model, blocks, recipe, _print_step)
    model.save_pretrained(folder / "model")
    tokens.save_pretrained(folder / "model")
    _write_rows(folder / "train.jsonl", split.train)
    _write_rows(folder / "heldout.jsonl", split.held_out)
    (folder / "README.md").write_text(readme.render(facts), encoding="utf-8")


def _print_step(step: int, loss: float, seconds: float) -> None:
    print(f"tiny model: step {step}, loss {loss:.3f}, {seconds:.0f} s", flush=True)


def _write_rows(path: Path, rows: list[questions.Row]) -> None:
    path.write_text("".join(json.dumps(row.as_messages()) + "\n" for row in rows), encoding="utf-8")
