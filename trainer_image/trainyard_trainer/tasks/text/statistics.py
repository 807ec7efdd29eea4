"""Statistics of a dataset and of its tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np

from trainyard_trainer.data.rows import Row
from trainyard_trainer.data.split import position
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.packing import pack

_BATCH_ROWS = 512
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(kw_only=True)
class Statistics:
    """Number and lengths of rows; `tokens` is empty without a tokenizer."""

    rows: int = 0
    duplicates: int = 0
    """Rows with the content of an earlier one."""
    repeated_prompts: int = 0
    """Other rows with the prompt of an earlier one."""
    turns: array[int] = field(default_factory=lambda: array("i"))
    characters: array[int] = field(default_factory=lambda: array("q"))
    tokens: array[int] = field(default_factory=lambda: array("i"))
    loss_tokens: int = 0

    def to_json(self, max_length: int) -> dict[str, object]:
        """The camelCase document, including the effect of a sequence length of `max_length`."""
        document: dict[str, object] = {
            "rows": self.rows,
            "duplicates": self.duplicates,
            "repeatedPrompts": self.repeated_prompts,
            "turns": quantiles(self.turns),
            "characters": quantiles(self.characters),
        }
        if not self.tokens:
            return document
        overlong = sum(length > max_length for length in self.tokens)
        return {
            **document,
            "tokens": quantiles(self.tokens),
            "lossTokens": self.loss_tokens,
            "maxLength": max_length,
            "overlongRows": overlong,
            "overlongShare": round(overlong / self.rows, 4),
            "truncatedTokens": sum(max(0, length - max_length) for length in self.tokens),
            "packingEfficiency": self.packing_efficiency(max_length),
        }

    def packing_efficiency(self, max_length: int) -> float | None:
        """Fraction of real tokens in packed sequences of the rows that fit; None if no row fits."""
        fitting = [length for length in self.tokens if length <= max_length]
        if not fitting:
            return None
        order = [int(row) for row in np.random.Generator(np.random.PCG64(0)).permutation(len(fitting))]
        sequences = sum(1 for _ in pack(order, fitting, max_length))
        return round(sum(fitting) / (sequences * max_length), 4)


def quantiles(values: Sequence[int]) -> dict[str, float]:
    """Total, mean, minimum, maximum and percentiles 50, 90, 95 and 99."""
    if not len(values):
        return {}
    numbers = np.asarray(values)
    found = np.quantile(numbers, list(_QUANTILES.values()), method="inverted_cdf")
    return {
        "total": int(numbers.sum()),
        "mean": round(float(numbers.mean()), 2),
        "min": int(numbers.min()),
        **{name: int(value) for name, value in zip(_QUANTILES, found, strict=True)},
        "max": int(numbers.max()),
    }


def measure(
    files: Iterable[ExampleFile], encoder: Encoder | None = None, poll: Callable[[], None] = lambda: None
) -> Statistics:
    """Read and measure every row of the files.

    Args:
        files: The files.
        encoder: Counts tokens; None omits them.
        poll: Called before each row; may raise.

    Raises:
        ConfigurationError: the chat template cannot be used.
        DataError: a row is invalid.
        NotFoundError: a file does not exist.
    """
    found = Statistics()
    contents: set[int] = set()
    prompts: set[int] = set()
    rows = chain.from_iterable(file.examples(poll) for file in files)
    while batch := list(islice(rows, _BATCH_ROWS)):
        for _, example in batch:
            _count(found, example, contents, prompts)
        if encoder is not None:
            _count_tokens(found, encoder, batch)
    return found


def _count(found: Statistics, example: Example, contents: set[int], prompts: set[int]) -> None:
    found.rows += 1
    found.turns.append(len(example.messages))
    found.characters.append(sum(len(message.content) for message in example.messages) + len(example.text or ""))
    content, prompt = position(example.digest), position(example.prompt_digest)
    if content in contents:
        found.duplicates += 1
    elif prompt in prompts:
        found.repeated_prompts += 1
    contents.add(content)
    prompts.add(prompt)


def _count_tokens(found: Statistics, encoder: Encoder, batch: Sequence[tuple[Row, Example]]) -> None:
    for encoded in encoder.encode_all(batch):
        found.tokens.append(len(encoded.tokens))
        found.loss_tokens += sum(encoded.loss[1:])
