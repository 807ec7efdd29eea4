"""From rows to tokens, and which of the tokens carry loss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from trainyard_trainer.data.formats.example import Example, Message, Row
from trainyard_trainer.errors import ConfigurationError, DataError

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = (Message("user", "question"), Message("assistant", "answer"))


@dataclass(frozen=True)
class Encoded:
    """One row as tokens; `loss[i]` says whether token i is one the model learns to write."""

    tokens: list[int]
    loss: list[bool]

    @property
    def has_loss(self) -> bool:
        """Whether any token carries loss; the first cannot: nothing stands before it to predict it from."""
        return any(self.loss[1:])

    def cut(self, length: int) -> Encoded:
        """At most its first `length` tokens."""
        return Encoded(self.tokens[:length], self.loss[:length])


class Encoder:
    """Renders conversations with the tokenizer's own chat template and tokenises them."""

    def __init__(self, tokenizer: Any, train_on: Literal["completions", "all"], model_name: str) -> None:
        self._tokenizer = tokenizer
        self._train_on = train_on
        self._model_name = model_name
        self._template: str | None = None

    @property
    def template(self) -> str | None:
        """The chat template, once a conversation was encoded with it."""
        return self._template

    def encode(self, row: Row, example: Example) -> Encoded:
        """Tokens of a row and which of them carry loss.

        Text rows end with the end-of-sequence token and carry loss everywhere; so do conversations with `all`.

        Raises:
            ConfigurationError: the tokenizer has no usable chat template, or one whose answers cannot be found again.
            DataError: the chat template refuses the conversation.
        """
        if example.text is not None:
            return self._encode_text(example.text)
        if self._template is None:
            self._template = self._usable_template()
        if self._train_on == "completions" and _GENERATION_MARK.search(self._template):
            return self._encode_marked(row, example.messages)
        text, spans = self._answer_spans(row, example.messages)
        return self._encode_spans(text, spans)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens that ask for the answer to `messages`."""
        if self._template is None:
            self._template = self._usable_template()
        text = self._render(messages, ask=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode_text(self, text: str) -> Encoded:
        tokens = list(self._tokenizer(text)["input_ids"])
        end = self._tokenizer.eos_token_id
        if end is not None and tokens[-1:] != [end]:
            tokens.append(end)
        return Encoded(tokens, [True] * len(tokens))

    def _usable_template(self) -> str:
        if self._tokenizer.chat_template is None:
            raise ConfigurationError(
                f"The tokenizer of {self._model_name} has no chat template, so conversations cannot be written for it.",
                "Use an instruction-tuned model, add chat_template.jinja to the model, or train on text rows.",
            )
        try:
            template = str(self._tokenizer.get_chat_template())
            self._render(_PROBE)
        except (TemplateError, ValueError, TypeError) as error:
            problem = f"The chat template of {self._model_name} does not work: {error}"
            raise ConfigurationError(problem, "Correct chat_template.jinja of the model.") from error
        if not self._tokenizer.is_fast:
            problem = f"The tokenizer of {self._model_name} cannot say where its tokens stand in the text."
            raise ConfigurationError(problem, "Give the model a tokenizer.json (a 'fast' tokenizer).")
        return template

    def _render(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask))

    def _render_row(self, row: Row, messages: Sequence[Message], *, ask: bool = False) -> str:
        try:
            return self._render(messages, ask=ask)
        except (TemplateError, TypeError) as error:
            raise self._refusal(row, error) from error

    def _refusal(self, row: Row, error: Exception) -> DataError:
        problem = f"the chat template of {self._model_name} refuses the conversation: {error}".rstrip(".")
        return row.error(problem, "Write the turns as the model's template wants them, or remove the row.")

    def _encode_marked(self, row: Row, messages: Sequence[Message]) -> Encoded:
        """The template itself marks what the assistant writes."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            encoded = self._tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
        except (TemplateError, TypeError) as error:
            raise self._refusal(row, error) from error
        return Encoded(list(encoded["input_ids"]), [bool(mark) for mark in encoded["assistant_masks"]])

    def _encode_spans(self, text: str, spans: Sequence[tuple[int, int]]) -> Encoded:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens = list(encoded["input_ids"])
        if self._train_on == "all":
            return Encoded(tokens, [True] * len(tokens))
        starts = [start for start, _ in encoded["offset_mapping"]]
        return Encoded(tokens, [any(begin <= start < end for begin, end in spans) for start in starts])

    def _answer_spans(self, row: Row, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The rendered conversation and the character range of each answer, its end-of-turn token included."""
        text = self._render_row(row, messages)
        if self._train_on == "all":
            return text, []
        numbers = [number for number, message in enumerate(messages) if message.role == "assistant"]
        return text, [self._answer_span(row, messages, number, text) for number in numbers]

    def _answer_span(self, row: Row, messages: Sequence[Message], number: int, text: str) -> tuple[int, int]:
        """Where answer `number` stands: after the rendering of all before it that asks for it."""
        before = self._render_row(row, messages[:number], ask=True)
        through = self._render_row(row, messages[: number + 1])
        content = messages[number].content.strip()
        # Some templates write the last answer differently from earlier ones (an empty <think> block, for example):
        # then an earlier answer is its bare content and what closes a turn.
        closing = through[through.rfind(content) + len(content) :]
        for answer in (through.removeprefix(before), content + closing):
            if text.startswith(before) and through.startswith(before) and text.startswith(answer, len(before)):
                end = len(before) + len(answer)
                return len(before), self._end_of_turn(text, len(before), end)
        raise ConfigurationError(
            f"{row.file}, row {row.line}: the chat template of {self._model_name} rewrites earlier turns, so the"
            " answers cannot be told from the rest.",
            "Set spec.llm.trainOn: all, write conversations of one question and one answer, or add"
            " {% generation %} marks to the template.",
        )

    def _end_of_turn(self, text: str, start: int, end: int) -> int:
        """Nothing behind the end-of-turn token is ever written by the model."""
        token = self._tokenizer.eos_token
        found = text.rfind(token, start, end) if token else -1
        return end if found < 0 else found + len(token)
