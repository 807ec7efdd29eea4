"""Statistics of a dataset and of its tokens."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np

from trainyard_trainer.data.rows import Row
from trainyard_trainer.data.split import position
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import Example, Message
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
    tool_rows: int = 0
    """Rows with tools, calls or results."""
    tool_calls: int = 0
    tool_turns: int = 0
    """Turns with the result of a call."""
    reasoning_turns: int = 0
    """Answers with reasoning, in its own field or in <think> tags."""
    masked_turns: int = 0
    """Turns with `loss: false`."""
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
            "toolRows": self.tool_rows,
            "toolCalls": self.tool_calls,
            "toolTurns": self.tool_turns,
            "reasoningTurns": self.reasoning_turns,
            "maskedTurns": self.masked_turns,
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
    found.characters.append(sum(map(_characters, example.messages)) + len(example.text or ""))
    calls = sum(len(message.tool_calls) for message in example.messages)
    results = sum(message.role == "tool" for message in example.messages)
    found.tool_calls += calls
    found.tool_turns += results
    found.tool_rows += bool(example.tools or calls or results)
    found.reasoning_turns += sum(map(_has_reasoning, example.messages))
    found.masked_turns += sum(not message.loss for message in example.messages)
    content, prompt = position(example.digest), position(example.prompt_digest)
    if content in contents:
        found.duplicates += 1
    elif prompt in prompts:
        found.repeated_prompts += 1
    contents.add(content)
    prompts.add(prompt)


def _characters(message: Message) -> int:
    """Characters of a turn; of a call, those of its name and arguments."""
    calls = sum(len(call.name) + len(json.dumps(call.arguments, ensure_ascii=False)) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning) + calls


def _has_reasoning(message: Message) -> bool:
    return message.role == "assistant" and bool(message.reasoning or "</think>" in message.content)


def _count_tokens(found: Statistics, encoder: Encoder, batch: Sequence[tuple[Row, Example]]) -> None:
    for encoded in encoder.encode_all(batch):
        found.tokens.append(len(encoded.tokens))
        found.loss_tokens += sum(encoded.loss[1:])
