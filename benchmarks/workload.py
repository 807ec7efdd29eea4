"""Models with random weights and rows of random but learnable tokens, for the training benchmarks."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.comparison import Case, Method

_SHORTEST = 8
_SUCCESSION = 0.75
"""Share of the tokens that the previous token determines."""

Lengths = Literal["mixed", "equal"]
Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int


SHAPES = {
    "tiny": Shape(hidden=128, intermediate=344, layers=2, heads=4, key_value_heads=2, vocabulary=1024),
    "small": Shape(hidden=256, intermediate=688, layers=4, heads=4, key_value_heads=2, vocabulary=8192),
    "llama-3.1-8b": Shape(hidden=4096, intermediate=14336, layers=32, heads=32, key_value_heads=8, vocabulary=128256),
}


def make_model(directory: Path, shape: Shape, *, precision: str, device: str, context: int) -> None:
    """Write a random Llama and an unused tokenizer; the rows are tokens already.

    Args:
        directory: Where to.
        shape: Its numbers.
        precision: bf16 or fp32, of the weights on disk.
        device: Where the numbers are drawn: 8 billion of them take a minute on a CPU.
        context: Positions it has.
    """
    from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries

    quiet_libraries()
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tiny_model.tokenizer import train_tokenizer

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=context,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(
            config, dtype={"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
        )
    model.save_pretrained(directory, max_shard_size="4GB")
    del model
    if device == "cuda":  # the processes that train need it all
        torch.cuda.empty_cache()
    train_tokenizer(["the rows are tokens already"], 300, context).save_pretrained(directory)


def row_lengths(kind: Lengths, count: int, longest: int) -> list[int]:
    """Return the tokens of each row: all `longest`, or log-normal about a seventh of it (sigma 1), like chats."""
    if kind == "equal":
        return [longest] * count
    chance, middle = random.Random(1), math.log(longest / 7)
    return [min(longest, max(_SHORTEST, round(chance.lognormvariate(middle, 1.0)))) for _ in range(count)]


def some_lengths(kind: Lengths, steps: int, tokens: int, longest: int) -> list[int]:
    """Return lengths of rows for so many steps of so many tokens; four times as many for mixed ones.

    `transformers` groups rows by length within 50 batches, or within a quarter of all rows where that is less, the
    longest first. A quarter of mixed rows as steps is therefore one such group: every length is seen, as in a long run.
    """
    if kind == "equal":
        return row_lengths(kind, steps * tokens // longest, longest)
    mean = sum(row_lengths(kind, 10_000, longest)) / 10_000
    return row_lengths(kind, 4 * steps * round(tokens / mean) + 4, longest)


def rows_per_step(lengths: Sequence[int], tokens: int) -> int:
    """Return the number of rows with so many tokens on average."""
    return max(1, round(tokens * len(lengths) / sum(lengths)))


def describe(lengths: Sequence[int]) -> str:
    """Return their number and distribution."""
    mean, middle = sum(lengths) / len(lengths), sorted(lengths)[len(lengths) // 2]
    return f"{len(lengths)}, log-normal (sigma 1): mean {mean:.0f}, median {middle}, longest {max(lengths)} tokens"


def rows(lengths: Sequence[int], vocabulary: int, *, seed: int) -> Iterator[list[int]]:
    """Yield rows of tokens: the previous token determines three of four, the others are random."""
    chance = random.Random(seed)
    for length in lengths:
        row = [_drawn(chance, vocabulary)]
        while len(row) < length:
            follows = chance.random() < _SUCCESSION
            row.append((5 * row[-1] + 7) % min(vocabulary, 512) if follows else _drawn(chance, vocabulary))
        yield row


def write_rows(path: Path, made: Iterator[list[int]], *, answers: bool = False) -> None:
    """Write tokenised rows as JSON Lines.

    Args:
        path: The file.
        made: The rows.
        answers: Only the second half of each row carries loss, as the answer of a chat does; else, every token.
    """
    with path.open("w") as file:
        for row in made:
            asked = len(row) // 2 if answers else 0
            file.write(json.dumps({"input_ids": row, "labels": [-100] * asked + row[asked:]}) + "\n")


def read_rows(path: Path) -> list[dict[str, list[int]]]:
    """Read what `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Workshop:
    """Writes a model and rows into a folder, and builds cases that train on them.

    Attributes:
        folder: An empty one.
        shape: The model's.
        precision: Of its weights and activations.
        device: cuda or cpu; both sides train there.
        longest: Tokens of the longest row of all.
        threads: Threads of each side's torch.
    """

    folder: Path
    shape: Shape
    precision: Precision
    device: str
    longest: int
    threads: int = 1

    def __post_init__(self) -> None:
        model, context = self.folder / "model", max(self.longest, 256)
        make_model(model, self.shape, precision=self.precision, device=self.device, context=context)
        lengths = row_lengths("mixed", 24, self.longest)
        write_rows(self.folder / "held-out.jsonl", rows(lengths, self.shape.vocabulary, seed=2))

    def case(
        self,
        method: Method,
        kind: Lengths,
        *,
        steps: int,
        sequences: int,
        length: int | None = None,
        answers: bool = False,
    ) -> Case:
        """Return a case.

        Args:
            method: How to train.
            kind: Of the rows' lengths.
            steps: How many.
            sequences: Packed sequences of a step.
            length: Tokens of each, and of the longest row; None takes `longest`.
            answers: Only answers carry loss.
        """
        length = length or self.longest
        tokens = sequences * length
        path = self.folder / f"{kind}-{length}-{steps * sequences}{'-answers' if answers else ''}.jsonl"
        lengths = some_lengths(kind, steps, tokens, length)
        if not path.exists():
            write_rows(path, rows(lengths, self.shape.vocabulary, seed=1), answers=answers)
        return Case(
            model=str(self.folder / "model"),
            rows=str(path),
            held_out=str(self.folder / "held-out.jsonl"),
            method=method,
            precision=self.precision,
            max_length=length,
            sequences=sequences,
            rows_per_batch=rows_per_step(lengths, tokens),
            max_steps=steps,
            gpus=int(self.device == "cuda"),
            threads=self.threads,
        )


def _drawn(chance: random.Random, vocabulary: int) -> int:
    return int(vocabulary * chance.random() ** 4)
