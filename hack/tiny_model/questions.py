"""Instruction rows from documentation strings.

A question names an object with its parameters. The answer states its kind, its parent and its docstring: "A method of
`logging.Logger`: Set the logging level of this logger."
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tiny_model.corpus import Entry, prose

FUNCTION_FORMS = (
    "What does `{}` do?",
    "Explain `{}`.",
    "What is `{}` for?",
    "Describe `{}` in one sentence.",
    "I found `{}` in some code. What does it do?",
)
NAME_FORMS = ("What is `{}`?", "Explain `{}`.", "Describe `{}` in one sentence.")
MIN_ANSWER, MAX_ANSWER = 30, 120  # characters
HELD_OUT_PERCENT = 9
SAME_ANSWER = 0.7  # Jaccard index of words from which two answers are duplicates


@dataclass(frozen=True)
class Row:
    """One question and its answer.

    Attributes:
        function: Full name of the object in question; unique over all rows.
        question: The user's turn.
        place: First part of the answer: kind and parent of the object.
        summary: Second part: the start of the docstring; unique over all rows.
    """

    function: str
    question: str
    place: str
    summary: str

    @property
    def answer(self) -> str:
        """The assistant's turn."""
        return f"{self.place}: {self.summary}"

    def as_messages(self) -> dict[str, list[dict[str, str]]]:
        """The row in the `messages` format."""
        return {
            "messages": [
                {"role": "user", "content": self.question},
                {"role": "assistant", "content": self.answer},
            ]
        }


@dataclass(frozen=True)
class Split:
    """Training rows, held-out rows, and the documents for pre-training."""

    train: list[Row]
    held_out: list[Row]
    documents: list[str]


def make_split(entries: Iterable[Entry], texts: Iterable[str]) -> Split:
    """Split the rows and drop from training rows and documents whatever repeats a held-out answer."""
    all_entries = list(entries)
    rows = _unique_rows(entry for entry in all_entries if entry.standard)
    held_out = [row for row in rows if _bucket(normal(row.summary)) < HELD_OUT_PERCENT]
    guard = Guard(held_out)
    train = [row for row in rows if not guard.repeats(row.function, row.summary)]
    documents = [e.document for e in all_entries if not guard.repeats(e.full_name, first_sentences(e.text))]
    return Split(train, held_out, [text for text in [*documents, *texts] if not guard.contains_answer(text)])


class Guard:
    """Detects repetitions of held-out rows."""

    def __init__(self, held_out: list[Row]) -> None:
        self._functions = {row.function for row in held_out}
        self._by_size: dict[int, list[frozenset[str]]] = defaultdict(list)
        self._by_start: dict[str, list[str]] = defaultdict(list)
        for answer in (normal(row.summary) for row in held_out):
            words = answer.split()
            self._by_size[len(set(words))].append(frozenset(words))
            self._by_start[" ".join(words[:2])].append(answer)

    def repeats(self, function: str, answer: str) -> bool:
        """Whether the function is held out, or its answer is a near duplicate of a held-out one."""
        words = frozenset(normal(answer).split())
        sizes = range(math.ceil(len(words) * SAME_ANSWER), math.floor(len(words) / SAME_ANSWER) + 1)
        return function in self._functions or any(
            len(words & other) >= SAME_ANSWER * len(words | other)
            for size in sizes
            for other in self._by_size.get(size, ())
        )

    def contains_answer(self, text: str) -> bool:
        """Whether the text contains a held-out answer, ignoring case, punctuation and line breaks."""
        words = normal(text).split()
        plain = f" {' '.join(words)} "
        starts = {f"{first} {second}" for first, second in itertools.pairwise(words)} & self._by_start.keys()
        return any(f" {answer} " in plain for start in starts for answer in self._by_start[start])


def normal(text: str) -> str:
    """Lower-case words separated by single blanks, for comparison."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def first_sentences(text: str) -> str:
    """The start of a docstring up to a sentence end after `MIN_ANSWER` characters; at most its first paragraph."""
    paragraph = prose(text).split("\n")[0]
    end = re.compile(r"[.!?](?= [A-Z]|$)").search(paragraph, MIN_ANSWER)
    return paragraph[: end.end()] if end else paragraph


def _unique_rows(entries: Iterable[Entry]) -> list[Row]:
    functions: set[str] = set()
    answers: set[str] = set()
    rows = []
    for entry in entries:
        row = _row(entry)
        if row is None or row.function in functions or normal(row.summary) in answers:
            continue
        functions.add(row.function)
        answers.add(normal(row.summary))
        rows.append(row)
    return rows


def _row(entry: Entry) -> Row | None:
    summary = first_sentences(entry.text)
    private = any(part.startswith("_") for part in entry.full_name.split("."))
    if private or not entry.name or not _is_sentence(summary):
        return None
    forms = FUNCTION_FORMS if entry.signature else NAME_FORMS
    form = forms[_bucket(entry.full_name) % len(forms)]
    return Row(entry.full_name, form.format(entry.full_name + entry.signature), _place(entry), summary)


def _place(entry: Entry) -> str:
    parent = entry.full_name.rpartition(".")[0]
    return f"A {entry.kind} of `{parent}`" if parent else f"A built-in {entry.kind}"


def _is_sentence(answer: str) -> bool:
    long_enough = MIN_ANSWER <= len(answer) <= MAX_ANSWER and answer.isascii()
    return long_enough and answer.endswith(".") and answer[0].isupper() and not re.search(r"->|\(\.\.\.\)|::", answer)


def _bucket(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100
