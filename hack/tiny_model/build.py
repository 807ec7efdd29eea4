"""Builds the folder: text, tokenizer, pre-trained model, instruction rows and a README."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from tiny_model import corpus, pretrain, questions, tokenizer


def build(folder: Path, recipe: pretrain.Recipe | None = None) -> None:
    """Write the model, the tokenizer, `train.jsonl`, `heldout.jsonl` and `README.md` into `folder`."""
    recipe = recipe or pretrain.Recipe()
    torch.set_num_threads(1)
    started = time.monotonic()
    print("tiny model: reading documentation strings, about 10 s", flush=True)
    split = questions.make_split(corpus.load_entries(), corpus.load_prose())
    tokens = tokenizer.train_tokenizer(split.documents, recipe.vocabulary, recipe.context)
    model = pretrain.new_model(recipe, tokens)
    blocks = pretrain.pack(split.documents, tokens, recipe)
    megabytes = sum(map(len, split.documents)) / 1e6
    print(
        f"tiny model: pre-training {model.num_parameters() / 1e6:.1f}M parameters on {megabytes:.1f} MB of Python"
        f" documentation ({blocks.numel() / 1e3:.0f}k tokens, {recipe.steps} steps), about 100 s",
        flush=True,
    )
    pretrain.pretrain(model, blocks, recipe, _print_step)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    _write_rows(folder / "train.jsonl", split.train)
    _write_rows(folder / "heldout.jsonl", split.held_out)
    print(f"tiny model: wrote {folder} in {time.monotonic() - started:.0f} s", flush=True)


def _print_step(step: int, loss: float, seconds: float) -> None:
    print(f"tiny model: step {step}, loss {loss:.3f}, {seconds:.0f} s", flush=True)


def _write_rows(path: Path, rows: list[questions.Row]) -> None:
    path.write_text("".join(json.dumps(row.as_messages()) + "\n" for row in rows))
