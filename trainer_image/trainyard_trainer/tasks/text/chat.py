"""Tokenisation of rows, and the tokens that carry loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from importlib.metadata import version
from itertools import compress
from typing import Any

from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import ConfigurationError, RowError
from trainyard_trainer.tasks.text import row_warnings
from trainyard_trainer.tasks.text.answer_spans import AnswerFinder, NotLocatedError, Places, Span
from trainyard_trainer.tasks.text.chat_template import TEMPLATE_ERRORS, ChatTemplate, reads_the_date
from trainyard_trainer.tasks.text.formats.example import Example, Message, TrainOn
from trainyard_trainer.tasks.text.formats.registry import TURN_FIELDS


@dataclass(frozen=True)
class Encoded:
    """One row as tokens; `loss[i]` is whether token i carries loss."""

    tokens: list[int]
    loss: list[bool]
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Names from `row_warnings`."""

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
    spans: Sequence[Span] | None
    conversation: Example | None = None
    """None for a row of text."""
    warnings: tuple[str, ...] = ()


class Encoder:
    """Renders conversations with the tokenizer's own chat template and tokenises them.

    Args:
        tokenizer: Has the chat template.
        train_on: What carries loss.
        model_name: The model in messages.
        today: The date that a template writes into its text; None: the clock's.
    """

    def __init__(self, tokenizer: Any, train_on: TrainOn, model_name: str, today: date | None = None) -> None:
        self._tokenizer = tokenizer
        self._today = today
        self._train_on = train_on
        self._model_name = model_name
        self._used: ChatTemplate | None = None

    @property
    def template(self) -> str | None:
        """The chat template, once a conversation was rendered with it."""
        return None if self._used is None else self._used.text

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
            *([self._today.isoformat()] if self._today and reads_the_date(self._tokenizer) else []),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def encode(self, row: Row, example: Example) -> Encoded:
        """Tokenise one row; see `encode_all`."""
        return self.encode_all([(row, example)])[0]

    def encode_all(self, examples: Sequence[tuple[Row, Example]]) -> list[Encoded]:
        """Tokenise rows; batches are several times faster than single rows.

        Text rows start with one beginning-of-sequence token, if the tokenizer adds it, and end with one end-of-sequence
        token; every token carries loss. With `trainOn: all`, so does every token of a conversation except its turns
        with `loss: false`. Rows of tokens are unchanged.

        Raises:
            ConfigurationError: the tokenizer has no usable chat template.
            RowError: the chat template refuses a conversation, or leaves out a part of it that carries loss.
        """
        rendered = [None if example.tokens else self._render_example(row, example) for row, example in examples]
        tokenized = self._tokenize([text for text in rendered if text is not None])
        return [
            Encoded(list(example.tokens), list(example.token_loss)) if text is None else next(tokenized)
            for (_, example), text in zip(examples, rendered, strict=True)
        ]

    def prompt(self, example: Example) -> list[int]:
        """Tokens of the turns of `example` with the template's generation prompt."""
        text = self._template.render(example, generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def _template(self) -> ChatTemplate:
        if self._used is None:
            self._used = self._usable_template()
        return self._used

    @cached_property
    def _finder(self) -> AnswerFinder:
        tokens = [str(token) for token in self._tokenizer.added_tokens_decoder.values()]
        return AnswerFinder(self._template, tokens, self._tokenizer.eos_token)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self._tokenizer.added_tokens_decoder)

    def _usable_template(self) -> ChatTemplate:
        if self._tokenizer.chat_template is None:
            raise ConfigurationError(
                f"The tokenizer of {self._model_name} has no chat template, which conversations need.",
                "Use an instruction-tuned model, add chat_template.jinja to the model, or train on text rows.",
            )
        template = ChatTemplate(self._tokenizer, self._model_name, self._today)
        template.check()
        if not self._tokenizer.is_fast:
            problem = f"The tokenizer of {self._model_name} does not report the offsets of its tokens."
            raise ConfigurationError(problem, "Give the model a tokenizer.json (a 'fast' tokenizer).")
        return template

    def _render_example(self, row: Row, example: Example) -> _Rendered:
        if example.text is not None:
            return _Rendered(example.text, None)
        template = self._template
        completions = (example.train_on or self._train_on) == "completions"
        try:
            if completions and template.has_marks(example):
                text, marked = template.render_marked(example)
            else:
                text, marked = template.render(example), []
        except TEMPLATE_ERRORS as error:
            raise self._refusal(row, example, error) from error
        try:
            return self._located(row, example, text, marked, completions=completions)
        except NotLocatedError as error:
            raise self._not_rendered(row, example, error.number, error.why) from error

    def _located(
        self, row: Row, example: Example, text: str, marked: Sequence[Span], *, completions: bool
    ) -> _Rendered:
        """The rendered row with the ranges that carry loss."""
        plain = all(message.is_plain for message in example.messages)
        answers = [number for number, message in enumerate(example.messages) if message.role == "assistant"]
        learned = [number for number in answers if example.messages[number].loss]
        uses_marks = bool(marked) and (len(learned) == len(answers) or len(marked) == len(answers))
        if plain and (uses_marks or (not completions and all(message.loss for message in example.messages))):
            spans = _chosen(marked, example, answers) if uses_marks else None
            return _Rendered(text, spans, example, self._tools_left_out(example))
        if completions and plain and (found := self._finder.plain_answers(example, text)) is not None:
            chosen = [span for span, number in zip(found, answers, strict=True) if example.messages[number].loss]
            return _Rendered(text, chosen, example, self._tools_left_out(example))
        places = self._finder.places(example, text)
        warnings = (*self._tools_left_out(example), *self._left_out(row, example, places))
        if uses_marks:
            return _Rendered(text, _chosen(marked, example, answers), example, warnings)
        if completions:
            return _Rendered(text, list(self._finder.answers(example, text, places, learned)), example, warnings)
        return _Rendered(text, self._all_but(example, text, places), example, warnings)

    def _all_but(self, example: Example, text: str, places: Places) -> list[Span]:
        """Everything except the turns with `loss: false`."""
        without = [number for number, message in enumerate(example.messages) if not message.loss]
        masked = [number for number in without if example.messages[number].role == "assistant"]
        ranges = dict(zip(masked, self._finder.answers(example, text, places, masked), strict=True))
        spans, at = [], 0
        for number in without:
            begin, end = ranges.get(number) or places.whole(number) or (at, at)
            spans.append((at, begin))
            at = end
        return [*spans, (at, len(text))]

    def _left_out(self, row: Row, example: Example, places: Places) -> tuple[str, ...]:
        """Names of warnings about parts that the template leaves out.

        Raises:
            RowError: it leaves out tool calls or results, without which the row teaches something else.
        """
        found = []
        for number, message in enumerate(example.messages):
            if message.tool_calls and places.call_counts.get(number, 0) < len(message.tool_calls):
                raise self._not_rendered(row, example, number, "leaves out the tool calls of")
            if message.role == "tool" and message.content.strip() and number not in places.content:
                raise self._not_rendered(row, example, number, "leaves out the content of")
            if message.tool_calls and message.content.strip() and number not in places.content:
                found.append(row_warnings.CONTENT_LEFT_OUT)
            if message.reasoning.strip() and number not in places.reasoning:
                found.append(row_warnings.REASONING_LEFT_OUT)
        return tuple(dict.fromkeys(found))

    def _tools_left_out(self, example: Example) -> tuple[str, ...]:
        if not example.tools or self._template.renders_tools:
            return ()
        return (row_warnings.TOOLS_LEFT_OUT,)

    def _not_rendered(self, row: Row, example: Example, number: int, why: str) -> RowError:
        role = f" ({example.messages[number].role})" if number < len(example.messages) else ""
        problem = f"the chat template of {self._model_name} {why} turn {number + 1}{role}"
        remedy = "Use a model whose template renders it, correct chat_template.jinja, or remove the row."
        return row.error(problem, remedy, kind="NotRendered", field=_field_of_turn(row, example.messages, number))

    def _refusal(self, row: Row, example: Example, error: Exception) -> RowError:
        messages = example.messages
        number = self._refused_turn(example, error)
        what = "the conversation" if number is None else f"turn {number + 1} ({messages[number].role})"
        problem = f"the chat template of {self._model_name} refuses {what}: {error}".rstrip(".")
        remedy = "Write the turns as the model's template requires, or remove the row."
        return row.error(problem, remedy, kind="TemplateRefused", field=_field_of_turn(row, messages, number))

    def _refused_turn(self, example: Example, error: Exception) -> int | None:
        """The last turn of the shortest prefix that the template refuses for the same reason."""
        messages = example.messages
        for count in range(1, len(messages)):
            try:
                self._template.render(replace(example, messages=messages[:count]))
            except TEMPLATE_ERRORS as other:
                if str(other) == str(error):
                    return count - 1
        return len(messages) - 1 if messages else None

    def _tokenize(self, rendered: Sequence[_Rendered]) -> Iterator[Encoded]:
        """Tokenise rendered rows in their order."""
        conversations = iter(self._tokenize_conversations([one for one in rendered if one.conversation]))
        texts = iter(self._tokenize_texts([one.text for one in rendered if not one.conversation]))
        for one in rendered:
            yield next(conversations if one.conversation else texts)

    def _tokenize_texts(self, texts: list[str]) -> list[Encoded]:
        if not texts:
            return []
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        rows = [list(tokens) for tokens in self._tokenizer([self._without_tail(text) for text in texts])["input_ids"]]
        for tokens in rows:
            while begin is not None and tokens[:2] == [begin, begin]:
                del tokens[0]
            while end is not None and tokens[-2:] == [end, end]:
                del tokens[-1]
            if end is not None and tokens[-1:] != [end]:
                tokens.append(end)
        return [Encoded(tokens, [True] * len(tokens)) for tokens in rows]

    def _without_tail(self, text: str) -> str:
        """The text without white space after an end-of-sequence token."""
        end = self._tokenizer.eos_token
        stripped = text.rstrip()
        return stripped if end and stripped.endswith(end) else text

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
            self._encoded(list(tokens), _loss_marks(encoding, one), one)
            for tokens, encoding, one in zip(encoded["input_ids"], encoded.encodings, rendered, strict=True)
        ]

    def _encoded(self, tokens: list[int], loss: list[bool], rendered: _Rendered) -> Encoded:
        if rendered.spans is None:
            return Encoded(tokens, loss, rendered.warnings)
        return Encoded(tokens, loss, (*rendered.warnings, *self._end_warnings(tokens, loss, rendered)))

    def _end_warnings(self, tokens: list[int], loss: list[bool], rendered: _Rendered) -> Iterator[str]:
        """Names of warnings about what the row teaches: nothing but ends, or no end."""
        if True not in loss:
            return
        if self._special_ids.issuperset(compress(tokens, loss)) or _learns_no_text(rendered.conversation):
            yield row_warnings.ONLY_END_LEARNED
        last = tokens[len(loss) - 1 - loss[::-1].index(True)]
        if last == self._tokenizer.eos_token_id or _ends_in_call(rendered.conversation):
            return
        if last in self._special_ids:
            yield f"{row_warnings.OTHER_END}:{self._tokenizer.convert_ids_to_tokens(last)}"
        else:
            yield row_warnings.NO_END


def _learns_no_text(example: Example | None) -> bool:
    """Whether every answer with loss is white space."""
    return not any(
        message.role == "assistant" and message.loss and (message.content.strip() or message.tool_calls)
        for message in (example.messages if example else ())
    )


def _ends_in_call(example: Example | None) -> bool:
    """Whether the last answer is a call: templates may end one with a token of its own."""
    answers = [message for message in example.messages if message.role == "assistant"] if example else []
    return bool(answers and answers[-1].tool_calls)


def _chosen(marked: Sequence[Span], example: Example, answers: Sequence[int]) -> Sequence[Span]:
    """The template's ranges of answers that carry loss."""
    if len(marked) != len(answers):
        return marked
    return [span for span, number in zip(marked, answers, strict=True) if example.messages[number].loss]


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
