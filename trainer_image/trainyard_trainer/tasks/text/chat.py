"""Tokenisation of rows, and the tokens that carry loss."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from jinja2 import TemplateError

from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import ConfigurationError, RowError
from trainyard_trainer.tasks.text.formats.example import Example, Message, TrainOn
from trainyard_trainer.tasks.text.formats.registry import TURN_FIELDS

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
"""Errors that a template raises, on purpose or by an expression."""
_PROBE = (Message("user", "question"), Message("assistant", "answer"))


@dataclass(frozen=True)
class Encoded:
    """One row as tokens; `loss[i]` is whether token i carries loss."""

    tokens: list[int]
    loss: list[bool]

    @property
    def has_loss(self) -> bool:
        """Whether any token carries loss; the first cannot, since nothing precedes it."""
        return any(self.loss[1:])

    def cut(self, length: int) -> Encoded:
        """At most its first `length` tokens."""
        return Encoded(self.tokens[:length], self.loss[:length])

    def pieces(self, length: int) -> list[Encoded]:
        """Split the row into pieces of at most `length` tokens, at least 2.

        Each piece starts with the last token of the previous one as context, so every token carries loss at most once.
        """
        starts = range(0, max(1, len(self.tokens) - 1), length - 1)
        return [
            Encoded(self.tokens[at : at + length], [at == 0 and self.loss[0], *self.loss[at + 1 : at + length]])
            for at in starts
        ]


@dataclass(frozen=True)
class _Rendered:
    """A row as text and the character ranges that carry loss; None: all of it."""

    text: str
    spans: Sequence[tuple[int, int]] | None
    is_conversation: bool


class Encoder:
    """Renders conversations with the tokenizer's own chat template and tokenises them."""

    def __init__(self, tokenizer: Any, train_on: TrainOn, model_name: str) -> None:
        self._tokenizer = tokenizer
        self._train_on = train_on
        self._model_name = model_name
        self._template: str | None = None

    @property
    def template(self) -> str | None:
        """The chat template, once a conversation was rendered with it."""
        return self._template

    @property
    def identity(self) -> str | None:
        """SHA-256 (hex) over everything that decides the tokens of a row; None for a slow tokenizer."""
        if not self._tokenizer.is_fast:
            return None
        parts = (
            self._tokenizer.backend_tokenizer.to_str(),
            str(self._tokenizer.chat_template),
            json.dumps(self._tokenizer.special_tokens_map, sort_keys=True, default=str),
            self._train_on,
            version("transformers"),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def encode(self, row: Row, example: Example) -> Encoded:
        """Tokenise one row; see `encode_all`."""
        return self.encode_all([(row, example)])[0]

    def encode_all(self, examples: Sequence[tuple[Row, Example]]) -> list[Encoded]:
        """Tokenise rows; batches are several times faster than single rows.

        Text rows end with the end-of-sequence token, and every token carries loss. With `trainOn: all`, so does every
        token of a conversation except its answers with `loss: false`. Rows of tokens are unchanged.

        Raises:
            ConfigurationError: the tokenizer has no usable chat template, or its answers cannot be located.
            RowError: the chat template refuses a conversation.
        """
        rendered = [None if example.tokens else self._render_example(row, example) for row, example in examples]
        tokenized = self._tokenize([text for text in rendered if text is not None])
        return [
            Encoded(list(example.tokens), list(example.token_loss)) if text is None else next(tokenized)
            for (_, example), text in zip(examples, rendered, strict=True)
        ]

    def _render_example(self, row: Row, example: Example) -> _Rendered:
        if example.text is not None:
            return _Rendered(example.text, None, is_conversation=False)
        if self._template is None:
            self._template = self._usable_template()
        if (example.train_on or self._train_on) == "completions":
            return self._render_completions(row, example.messages, self._template)
        if all(message.loss for message in example.messages):
            return _Rendered(self._render_row(row, example.messages), None, is_conversation=True)
        return self._render_all_but(row, example.messages)

    def _render_completions(self, row: Row, messages: Sequence[Message], template: str) -> _Rendered:
        """Put loss on the answers, except those with `loss: false`."""
        if _GENERATION_MARK.search(template):
            text, spans = self._marked_spans(row, messages, template)
            chosen = [message.loss for message in messages if message.role == "assistant"]
            if all(chosen):
                return _Rendered(text, spans, is_conversation=True)
            if len(spans) == len(chosen):
                kept = [span for span, loss in zip(spans, chosen, strict=True) if loss]
                return _Rendered(text, kept, is_conversation=True)
        text = self._render_row(row, messages)
        spans = self._answer_spans(row, messages, text, loss=True)
        return _Rendered(text, spans, is_conversation=True)

    def _render_all_but(self, row: Row, messages: Sequence[Message]) -> _Rendered:
        """Put loss on everything except the answers with `loss: false`."""
        text = self._render_row(row, messages)
        spans, at = [], 0
        for begin, end in self._answer_spans(row, messages, text, loss=False):
            spans.append((at, begin))
            at = end
        return _Rendered(text, [*spans, (at, len(text))], is_conversation=True)

    def _tokenize(self, rendered: Sequence[_Rendered]) -> Iterator[Encoded]:
        """Tokenise rendered rows in their order."""
        conversations = iter(self._tokenize_conversations([one for one in rendered if one.is_conversation]))
        texts = iter(self._tokenize_texts([one.text for one in rendered if not one.is_conversation]))
        for one in rendered:
            yield next(conversations if one.is_conversation else texts)

    def _tokenize_texts(self, texts: list[str]) -> list[Encoded]:
        if not texts:
            return []
        end = self._tokenizer.eos_token_id
        rows = [list(tokens) for tokens in self._tokenizer(texts)["input_ids"]]
        for tokens in rows:
            if end is not None and tokens[-1:] != [end]:
                tokens.append(end)
        return [Encoded(tokens, [True] * len(tokens)) for tokens in rows]

    def _tokenize_conversations(self, rendered: list[_Rendered]) -> list[Encoded]:
        if not rendered:
            return []
        encoded = self._tokenizer(
            [one.text for one in rendered],
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [
            Encoded(list(tokens), _loss_marks(encoding, one))
            for tokens, encoding, one in zip(encoded["input_ids"], encoded.encodings, rendered, strict=True)
        ]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of `messages` with the template's generation prompt."""
        if self._template is None:
            self._template = self._usable_template()
        text = self._render(messages, generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _usable_template(self) -> str:
        if self._tokenizer.chat_template is None:
            raise ConfigurationError(
                f"The tokenizer of {self._model_name} has no chat template, which conversations need.",
                "Use an instruction-tuned model, add chat_template.jinja to the model, or train on text rows.",
            )
        try:
            template = str(self._tokenizer.get_chat_template())
            self._render(_PROBE)
        except _TEMPLATE_ERRORS as error:
            problem = f"The chat template of {self._model_name} does not work: {error}"
            raise ConfigurationError(problem, "Correct chat_template.jinja of the model.") from error
        if not self._tokenizer.is_fast:
            problem = f"The tokenizer of {self._model_name} does not report the offsets of its tokens."
            raise ConfigurationError(problem, "Give the model a tokenizer.json (a 'fast' tokenizer).")
        return template

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt))

    def _render_row(self, row: Row, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        try:
            return self._render(messages, generation_prompt=generation_prompt)
        except _TEMPLATE_ERRORS as error:
            raise self._refusal(row, messages, error) from error

    def _refusal(self, row: Row, messages: Sequence[Message], error: Exception) -> RowError:
        number = self._refused_turn(messages, error)
        what = "the conversation" if number is None else f"turn {number + 1} ({messages[number].role})"
        problem = f"the chat template of {self._model_name} refuses {what}: {error}".rstrip(".")
        remedy = "Write the turns as the model's template requires, or remove the row."
        return row.error(problem, remedy, kind="TemplateRefused", field=_field_of_turn(row, messages, number))

    def _refused_turn(self, messages: Sequence[Message], error: Exception) -> int | None:
        """The last turn of the shortest prefix that the template refuses for the same reason."""
        for count in range(1, len(messages)):
            try:
                self._render(messages[:count])
            except _TEMPLATE_ERRORS as other:
                if str(other) == str(error):
                    return count - 1
        return len(messages) - 1 if messages else None

    def _marked_spans(self, row: Row, messages: Sequence[Message], template: str) -> tuple[str, list[tuple[int, int]]]:
        """The rendered conversation and its answers according to the template's generation marks."""
        from transformers.utils.chat_template_utils import render_jinja_template

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[turns],
                chat_template=template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        except _TEMPLATE_ERRORS as error:
            raise self._refusal(row, messages, error) from error
        return str(texts[0]), [(int(begin), int(end)) for begin, end in spans[0]]

    def _answer_spans(self, row: Row, messages: Sequence[Message], text: str, *, loss: bool) -> list[tuple[int, int]]:
        """The character range of each answer with the given `loss`, including its end-of-turn token."""
        numbers = [
            number for number, message in enumerate(messages) if message.role == "assistant" and message.loss is loss
        ]
        return [self._answer_span(row, messages, number, text) for number in numbers]

    def _answer_span(self, row: Row, messages: Sequence[Message], number: int, text: str) -> tuple[int, int]:
        """The character range of answer `number`: it follows the turns before it with a generation prompt."""
        before = self._render_row(row, messages[:number], generation_prompt=True)
        is_last = number + 1 == len(messages)
        through = text if is_last else self._render_row(row, messages[: number + 1])
        content = messages[number].content.strip()
        # Some templates render the last answer differently from earlier ones (an empty <think> block, for example):
        # an earlier answer is then its content and the text that closes a turn.
        closing = through[through.rfind(content) + len(content) :]
        for answer in (through.removeprefix(before), content + closing):
            if text.startswith(before) and through.startswith(before) and text.startswith(answer, len(before)):
                end = len(before) + len(answer)
                return len(before), self._end_of_turn(text, len(before), end)
        raise ConfigurationError(
            f"{row.file}, row {row.number}: the chat template of {self._model_name} rewrites earlier turns, so the"
            " answers cannot be located.",
            "Set spec.llm.trainOn: all, write conversations of one question and one answer, or add"
            " {% generation %} marks to the template.",
        )

    def _end_of_turn(self, text: str, start: int, end: int) -> int:
        """The offset after the end-of-turn token: the model never generates what follows it."""
        token = self._tokenizer.eos_token
        found = text.rfind(token, start, end) if token else -1
        return end if found < 0 else found + len(token)


def _field_of_turn(row: Row, messages: Sequence[Message], number: int | None) -> str | None:
    """The field of turn `number` in a row with a list of turns; a system text may be beside the list."""
    name = next((name for name in TURN_FIELDS if isinstance(row.values.get(name), list)), None)
    if name is None or number is None:
        return None
    at = number - (len(messages) - len(row.values[name]))
    return f"{name}[{at}]" if at >= 0 else "system"


def _loss_marks(encoding: Any, rendered: _Rendered) -> list[bool]:
    """Whether each token starts within one of the spans."""
    length = len(encoding.ids)
    if rendered.spans is None:
        return [True] * length
    marks = [False] * length
    for begin, end in rendered.spans:
        first = _first_token(encoding, begin, len(rendered.text))
        last = _first_token(encoding, end, len(rendered.text))
        marks[first:last] = [True] * (last - first)
    return marks


def _first_token(encoding: Any, at: int, length: int) -> int:
    """The first token that starts at or after character `at` of `length`."""
    while at < length:
        token: int | None = encoding.char_to_token(at)
        if token is not None:
            begins_before = bool(encoding.token_to_chars(token)[0] < at)
            return token + begins_before
        at += 1  # a character without a token
    return len(encoding.ids)
