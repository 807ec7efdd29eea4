"""Comparison of a model before and after training, on held-out rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import torch

from trainyard_crds.trainingjob_training import Quantization
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError
from trainyard_trainer.sources.files import check_model_directory
from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.batches import BatchSettings, TextBatches
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.evaluate import mean_loss
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import Example, Message
from trainyard_trainer.tasks.text.generate import greedy
from trainyard_trainer.tasks.text.models.adapter import CONFIG_FILE, attach_adapter
from trainyard_trainer.tasks.text.models.loading import load_base_model
from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer
from trainyard_trainer.tasks.text.token_rows import TokenRows

MAX_LENGTH = 4096
"""Longer rows are cut."""
_SEQUENCE = 512
"""Tokens of a packed sequence, unless a row is longer."""
MAX_NEW_TOKENS = 60


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One held-out question with its answers."""

    question: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Losses are means per loss token in nats; `after_shuffled` is None where rows have no questions to exchange."""

    rows: int
    tokens: int
    before: float
    after: float
    after_shuffled: float | None
    samples: Sequence[Sample]

    @property
    def change_percent(self) -> float:
        """Relative change of the loss; negative if it fell."""
        return 100 * (self.after / self.before - 1)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Context managers of the model before and after training; one at a time, since they may share an object."""

    before: Callable[[], AbstractContextManager[Any]]
    after: Callable[[], AbstractContextManager[Any]]


class Comparer:
    """Compares a base model with the trained one."""

    def __init__(
        self,
        base: LocalModel,
        trained: Path,
        *,
        method: Literal["lora", "qlora", "full"],
        device: torch.device,
        poll: Callable[[], None],
    ) -> None:
        self._tokenizer = load_tokenizer(base.path, base.name)
        self._encoder = Encoder(self._tokenizer, "completions", base.name)
        self._pair = _load_pair(base, trained, method, device)
        self._device = device
        self._poll = poll

    def compare(self, file: ExampleFile, *, samples: int, seed: int) -> Comparison:
        """Compute losses over all rows of a file, and answers to a few of its questions.

        Raises:
            DataError: A row is invalid.
        """
        rows = list(file.examples(self._poll))
        right = self._batches(file, rows)
        exchanged = exchange_questions([example for _, example in rows], seed)
        wrong = self._batches(file, [(row, other) for (row, _), other in zip(rows, exchanged, strict=True)])
        chosen = _choose([example for _, example in rows], samples, seed)
        with self._pair.before() as model:
            before, answers_before = self._loss(model, right), self._answers(model, chosen)
        with self._pair.after() as model:
            after, answers_after = self._loss(model, right), self._answers(model, chosen)
            shuffled = self._loss(model, wrong) if _are_exchanged(exchanged) else None
        return Comparison(
            rows=len(right),
            tokens=right.num_loss_tokens,
            before=before,
            after=after,
            after_shuffled=shuffled,
            samples=[
                Sample(question=_question(row).messages[-1].content, reference=_answer(row), before=first, after=second)
                for row, first, second in zip(chosen, answers_before, answers_after, strict=True)
            ],
        )

    def _batches(self, file: ExampleFile, examples: Sequence[tuple[Row, Example]]) -> TextBatches:
        encoded = [self._encoder.encode(row, example).cut(MAX_LENGTH) for row, example in examples]
        rows = TokenRows.of(row for row in encoded if row.has_loss)
        if not len(rows):
            raise DataError(f"No row of {file.name} has an answer within {MAX_LENGTH} tokens.", "Write shorter rows.")
        settings = BatchSettings(
            batch_size=1, max_length=max(_SEQUENCE, *rows.lengths), packing=True, pad_token=0, seed=0
        )
        return TextBatches(rows, range(len(rows)), settings, shuffle=False)

    def _loss(self, model: Any, batches: TextBatches) -> float:
        return mean_loss(model, batches, self._device, self._poll)

    def _answers(self, model: Any, examples: Sequence[Example]) -> list[str]:
        answers = []
        for example in examples:
            self._poll()
            prompt = self._encoder.prompt(_question(example))
            answers.append(greedy(model, self._tokenizer, prompt, max_new_tokens=MAX_NEW_TOKENS))
        return answers


def exchange_questions(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return each row's answers with another row's questions; no row keeps its own."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    partner = {row: order[(place + 1) % len(order)] for place, row in enumerate(order)}
    return [_with_questions_of(example, examples[partner[row]]) for row, example in enumerate(examples)]


def _are_exchanged(examples: Sequence[Example]) -> bool:
    """Whether questions could be exchanged: not for a single row, nor for texts."""
    return len(examples) > 1 and all(example.messages for example in examples)


def _with_questions_of(example: Example, other: Example) -> Example:
    questions = cycle([message for message in other.messages if message.role == "user"] or [Message("user", "")])
    return replace(
        example,
        messages=tuple(next(questions) if message.role == "user" else message for message in example.messages),
    )


def _choose(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return some rows that have a question."""
    with_question = [
        example for example in examples if any(message.role == "user" for message in _question(example).messages)
    ]
    return random.Random(seed).sample(with_question, min(count, len(with_question)))


def _question(example: Example) -> Example:
    """Return the example up to its last answer."""
    answers = [number for number, message in enumerate(example.messages) if message.role == "assistant"]
    return replace(example, messages=example.messages[: answers[-1]] if answers else ())


def _answer(example: Example) -> str:
    return next(message.content for message in reversed(example.messages) if message.role == "assistant")


def _load_pair(base: LocalModel, trained: Path, method: str, device: torch.device) -> _Pair:
    precision: Literal["bf16", "fp32"] = "bf16" if device.type == "cuda" else "fp32"
    quantization = Quantization() if method == "qlora" else None
    model = load_base_model(base.path, base.name, precision=precision, device=device, quantization=quantization)
    if not (trained / CONFIG_FILE).is_file():
        check_model_directory(trained, str(trained))
        whole = load_base_model(trained, str(trained), precision=precision, device=device)
        return _Pair(before=lambda: nullcontext(model), after=lambda: nullcontext(whole))
    adapted = attach_adapter(model, trained, str(trained))

    @contextmanager
    def without_adapter() -> Iterator[Any]:
        with adapted.disable_adapter():
            yield adapted

    return _Pair(before=without_adapter, after=lambda: nullcontext(adapted))
