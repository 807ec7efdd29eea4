"""Where the answers of a conversation are in its rendered text.

The conversation is rendered a second time with marks: private-use characters around the texts of its turns. Without
the marks the second text must equal the first; then the marks give the place of every turn, whatever else the template
rewrites. Where a mark changes what the template does, a turn is located by what changes in the text when the turn is
replaced.

An answer starts where the template's generation prompt ends, and ends with the token that ends a turn: the model
generates exactly that. Both are known from rendered probes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from trainyard_trainer.tasks.text.chat_template import CALL_PROBE, TEMPLATE_ERRORS, ChatTemplate
from trainyard_trainer.tasks.text.formats.example import Example, Message, Role, ToolCall

Span = tuple[int, int]
_FIRST_CALL_MARK = 0xF0000
"""The beginning of each call of the conversation has a mark of its own: templates repeat names of functions."""
MAX_CALLS = 0xFFF0
_FIRST_MARK = 0x100000
_KINDS = ("content", "reasoning", "calls")
_MARKS_PER_TURN = 2 * len(_KINDS)
MAX_TURNS = 0xFFF0 // _MARKS_PER_TURN
_MARK = re.compile("[\U000f0000-\U0010fffd]")
_THINK_TAG = re.compile(r"(</?think>)")
_PROBES = ("\U0010fff8", "\U0010fff9", "\U0010fffa", "\U0010fffb")
_REPLACEMENT = "\U0010fffc"


class NotLocatedError(Exception):
    """A turn has no place in the rendered text: its number, from 0, and why."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number
        self.why = why


@dataclass(frozen=True)
class Frame:
    """What a template writes around answers."""

    prompts: Mapping[Role, tuple[str, ...]]
    """By the role of the turn before: texts after whose end an answer starts, the preferred one first."""
    generation_prompts: tuple[str, ...]
    """The same for any turn; empty if the template has no generation prompt."""
    ends: tuple[str, ...]
    """Tokens that end an answer; empty if it has none."""
    openings: tuple[str, ...]
    """What a template may write between prompt and content of an answer without reasoning."""
    closings: tuple[str, ...]
    """What a template may write after the content, up to the end of the token that ends the answer."""


@dataclass(frozen=True)
class _Rendered:
    example: Example
    text: str
    frame: Frame


@dataclass
class Places:
    """Where the parts of the turns are, by number of the turn."""

    content: dict[int, Span] = field(default_factory=dict)
    reasoning: dict[int, Span] = field(default_factory=dict)
    calls: dict[int, Span] = field(default_factory=dict)
    call_counts: dict[int, int] = field(default_factory=dict)

    def whole(self, number: int) -> Span | None:
        """From the first to the last part of a turn that is in the text."""
        found = [part[number] for part in (self.content, self.reasoning, self.calls) if number in part]
        return (min(begin for begin, _ in found), max(end for _, end in found)) if found else None


class AnswerFinder:
    """Finds answers in the texts of one template."""

    def __init__(self, template: ChatTemplate, added_tokens: Sequence[str], end_token: str | None) -> None:
        self._template = template
        self._end_token = end_token
        self._tokens = [token for token in added_tokens if token.strip()]
        self._frames: dict[str, Frame] = {}

    def places(self, example: Example, text: str) -> Places:
        """The place of every turn's parts in `text`, the rendered example; parts that are not in it have none."""
        if len(example.messages) > MAX_TURNS or sum(len(one.tool_calls) for one in example.messages) > MAX_CALLS:
            raise NotLocatedError(
                MAX_TURNS, f"renders too many turns to locate answers: there are at most {MAX_TURNS:,}; this is"
            )
        try:
            marked = self._template.render(_marked(example))
        except TEMPLATE_ERRORS:
            return self._places_by_difference(example, text)
        if _MARK.sub("", marked) != text:
            return self._places_by_difference(example, text)
        return _read_marks(marked, example)

    def plain_answers(self, example: Example, text: str) -> list[Span] | None:
        """The ranges of all answers if the text shows them without doubt; this saves the second rendering.

        Every answer follows a question, the prompt between the two occurs once for each of them, and what follows it
        is the content and the end of an answer. None if one of this does not hold.
        """
        frame, messages = self._frame(example), example.messages
        answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
        if not all(number and messages[number - 1].role == "user" for number in answers):
            return None
        for prompt in frame.prompts["user"]:
            if text.count(prompt) == len(answers):
                found, at = [], 0
                for number in answers:
                    start = text.find(prompt, at)
                    place = _content_and_end(text, start + len(prompt), messages[number].content, frame)
                    if place is None:
                        return None
                    content, at = place
                    longer = (start + len(one) for one in frame.prompts["user"] if text.startswith(one, start))
                    found.append((max(begin for begin in longer if begin <= content), at))
                return found
        return None

    def answers(self, example: Example, text: str, places: Places, numbers: Sequence[int]) -> Iterator[Span]:
        """The ranges of characters that the model generates for the answers `numbers`, in order.

        Raises:
            NotLocatedError: an answer is not in the text.
        """
        frame = self._frame(example)
        after = 0
        for number in numbers:
            if not example.messages[number].content.strip() and places.whole(number) is None:
                self._add_by_difference(example, text, number, places)  # white space has no marks
            part = places.whole(number)
            if part is None:
                raise NotLocatedError(number, "leaves out the text of")
            if number and (previous := places.whole(number - 1)) is not None and previous[1] <= part[0]:
                after = max(after, previous[1])
            begin = self._begin(_Rendered(example, text, frame), number, (after, part[0]))
            limit = _next_place(example, places, number, len(text))
            after = max(part[1], self._end(_Rendered(example, text, frame), number, (part[1], limit)))
            yield begin, after

    def _begin(self, rendered: _Rendered, number: int, within: Span) -> int:
        """Where the model starts to generate: after the last prompt between the answer before and the first part."""
        example, text, frame = rendered.example, rendered.text, rendered.frame
        after, first = within
        before = example.messages[number - 1].role if number else None
        candidates = (*(frame.prompts.get(before, ()) if before else ()), *frame.generation_prompts)
        ends = [at + len(one) for one in candidates if (at := text.rfind(one, after, first)) >= 0]
        if ends:
            return max(ends)
        if number:
            try:
                prompt = self._template.render(
                    replace(example, messages=example.messages[:number]), generation_prompt=True
                )
            except TEMPLATE_ERRORS:
                prompt = ""
            if prompt and after <= len(prompt) <= first and text.startswith(prompt):
                return len(prompt)
        if example.messages[number].tool_calls:
            raise NotLocatedError(number, "does not show where the model starts to generate")
        content = example.messages[number].content
        space = content[: len(content) - len(content.lstrip())]
        return first - len(space) if text.endswith(space, after, first) else first

    def _end(self, rendered: _Rendered, number: int, within: Span) -> int:
        """The offset after the token that ends the turn: the model never generates what follows it."""
        text, frame, (after, limit) = rendered.text, rendered.frame, within
        ends = [at + len(end) for end in frame.ends if (at := text.find(end, after, limit)) >= 0]
        if ends:
            return min(ends)
        if frame.ends:
            return after
        # Without an end token, the turn ends where the conversation would end if this were its last turn.
        example = rendered.example
        try:
            alone = self._template.render(replace(example, messages=example.messages[: number + 1])).rstrip()
        except TEMPLATE_ERRORS:
            return after
        return len(alone) if after <= len(alone) <= limit and text.startswith(alone) else after

    def _places_by_difference(self, example: Example, text: str) -> Places:
        """The place of each turn that could be needed: what changes in the text when the turn is replaced."""
        found = Places()
        for number, message in enumerate(example.messages):
            if _is_located(message):
                self._add_by_difference(example, text, number, found)
        return found

    def _add_by_difference(self, example: Example, text: str, number: int, found: Places) -> None:
        message, others = example.messages[number], [*example.messages]
        others[number] = _replaced(message)
        try:
            other = self._template.render(replace(example, messages=tuple(others)))
        except TEMPLATE_ERRORS as error:
            raise NotLocatedError(number, f"refuses another text ({error}) in") from error
        place = _difference(text, other)
        inside = text[slice(*place)]
        if (last := _THINK_TAG.split(message.content)[-1].strip()) and last in inside:
            found.content[number] = place
        if not message.content.strip() and not message.tool_calls:
            found.content[number] = place
        if message.reasoning.strip() and message.reasoning.strip() in inside:
            found.reasoning[number] = place
        if message.tool_calls and all(call.name in inside for call in message.tool_calls):
            found.calls[number] = place
            found.call_counts[number] = len(message.tool_calls)

    def _frame(self, example: Example) -> Frame:
        """The frame for rows with the same variables, and tools or none."""
        key = repr((sorted(example.template_options.items(), key=str), bool(example.tools)))
        if key not in self._frames:
            self._frames[key] = self._find_frame(example)
        return self._frames[key]

    def _find_frame(self, example: Example) -> Frame:
        first, second, third, fourth = _PROBES
        question, answer = Message("user", first), Message("assistant", second)
        render = self._probe_renderer(example)
        asked, bare = render([question], prompt=True), render([question])
        short = render([question, answer])
        long = render([question, answer, Message("user", third), Message("assistant", fourth)])
        reasoned = render([question, Message("assistant", second, reasoning=third)])
        between = [
            *(_between(text, first, second) for text in (short, long)),
            _between(long, third, fourth),
            _between(reasoned, first, third),
        ]
        prompts: dict[Role, tuple[str, ...]] = {"user": _prompts(_after(asked, first), between, asked != bare)}
        system = [Message("system", third)]
        prompts["system"] = _prompts(
            _after(render(system, prompt=True), third), [_between(render([*system, answer]), third, second)], True
        )
        twice = render([question, answer, Message("assistant", fourth)])
        prompts["assistant"] = _prompts(
            _after(render([question, answer], prompt=True), second), [_between(twice, second, fourth)], True
        )
        prompts["tool"] = self._tool_prompts(render)
        generation: tuple[str, ...] = ()
        if asked and bare and asked.startswith(bare) and asked != bare:
            generation = _prompts(asked[len(bare) :], [gap.removeprefix(_after(bare, first)) for gap in between], True)
        ends = self._ends(render, long, short)
        tails = (_between(long, second, third), _after(short, second))
        return Frame(
            prompts,
            generation,
            ends,
            openings=tuple(
                {gap.removeprefix(one) for gap in between for one in prompts["user"] if gap.startswith(one)}
            ),
            closings=tuple({tail[: tail.find(end) + len(end)] for tail in tails for end in ends if end in tail}),
        )

    def _probe_renderer(self, example: Example) -> Callable[..., str]:
        """A function that renders turns as the rows of this kind; "" where the template refuses them."""

        def render(messages: Sequence[Message], *, prompt: bool = False) -> str:
            tools = CALL_PROBE.tools if example.tools else ()
            probe = Example(messages=tuple(messages), tools=tools, template_options=example.template_options)
            try:
                return self._template.render(probe, generation_prompt=prompt)
            except TEMPLATE_ERRORS:
                return ""

        return render

    def _tool_prompts(self, render: Callable[..., str]) -> tuple[str, ...]:
        question, call, result, _ = CALL_PROBE.messages
        turns = [question, call, replace(result, content=_PROBES[0])]
        answered = render([*turns, Message("assistant", _PROBES[1])])
        asked, bare = render(turns, prompt=True), render(turns)
        return _prompts(_after(asked, _PROBES[0]), [_between(answered, _PROBES[0], _PROBES[1])], asked != bare)

    def _ends(self, render: Callable[..., str], long: str, short: str) -> tuple[str, ...]:
        """The tokens that end an answer."""
        _, second, third, _ = _PROBES
        middle, last = _between(long, second, third), _after(short, second)
        shared = _shared([middle, last]) if middle else last
        ends = []
        if self._end_token and self._end_token in shared:
            ends.append(self._end_token)
        elif token := self._last_token(shared):
            ends.append(token)
        elif token := self._last_token(last):
            ends += [token, *([first] if (first := self._first_token(middle)) else [])]
        question, call, *_ = CALL_PROBE.messages
        called = _after(render([question, _replaced(call)]), _REPLACEMENT)
        token = self._last_token(called)
        if ends and token and not any(end in called for end in ends):
            ends.append(token)
        return tuple(ends)

    def _last_token(self, text: str) -> str | None:
        """The added token that ends last in a text."""
        found = max(
            ((text.rfind(token) + len(token), len(token), token) for token in self._tokens if token in text),
            default=None,
        )
        return found[2] if found else None

    def _first_token(self, text: str) -> str | None:
        found = min(((text.find(token), -len(token), token) for token in self._tokens if token in text), default=None)
        return found[2] if found else None


def _is_located(message: Message) -> bool:
    """Whether the place of a turn can matter: answers, results, and turns that carry no loss."""
    return message.role in ("assistant", "tool") or not message.loss


def _content_and_end(text: str, begin: int, content: str, frame: Frame) -> Span | None:
    """Where the content starts, which the template may have stripped, and where its answer ends; None if it differs."""
    for one in (content, content.strip()):
        for opening in frame.openings:
            at = begin + len(opening)
            if text.startswith(opening, begin) and text.startswith(one, at):
                for closing in frame.closings:
                    if text.startswith(closing, at + len(one)):
                        return at, at + len(one) + len(closing)
    return None


def _next_place(example: Example, places: Places, number: int, end: int) -> int:
    """Where the next turn's parts start."""
    for later in range(number + 1, len(example.messages)):
        if (part := places.whole(later)) is not None:
            return part[0]
    return end


def _prompts(asked: str, between: Sequence[str], has_effect: bool) -> tuple[str, ...]:
    """The texts that end where an answer starts.

    Args:
        asked: What follows a turn with a generation prompt.
        between: What is between such a turn and an answer, in several conversations.
        has_effect: Whether the template adds a generation prompt.
    """
    found = [asked]
    for gap in filter(None, between):
        shared = _shared([asked, gap])
        if shared == asked and gap[len(asked) :].strip() and not has_effect:
            shared = gap  # a template without a generation prompt: the answer's header is no part of the answer
        elif shared != gap:
            shared = re.sub(r"<[^<>]*$", "", shared)  # both go on with a tag, but not with the same
        found.append(shared)
    return tuple(sorted({one for one in found if one}, key=len, reverse=True))


def _after(text: str, mark: str) -> str:
    return text.rpartition(mark)[2] if mark in text else ""


def _between(text: str, first: str, second: str) -> str:
    begin, end = text.rfind(first), text.rfind(second)
    return text[begin + 1 : end] if 0 <= begin < end else ""


def _shared(texts: Sequence[str]) -> str:
    """The longest common beginning of the texts."""
    first, last = min(texts), max(texts)
    for at, letter in enumerate(first):
        if letter != last[at]:
            return first[:at]
    return first


def _difference(text: str, other: str) -> Span:
    """The range of `text` that differs from `other`."""
    begin = len(_shared([text, other]))
    tail = len(_shared([text[begin:][::-1], other[begin:][::-1]]))
    return begin, len(text) - tail


def _replaced(message: Message) -> Message:
    """The turn with other texts."""
    calls = tuple(
        ToolCall(_REPLACEMENT, _with_strings(call.arguments, lambda _: _REPLACEMENT), call.id)
        for call in message.tool_calls
    )
    reasoning = _REPLACEMENT if message.reasoning else ""
    content = _REPLACEMENT if message.content or not calls else ""
    return replace(message, content=content, reasoning=reasoning, tool_calls=calls)


def _with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with all its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _with_strings(item, change) for key, item in value.items()}
    return [_with_strings(item, change) for item in value] if isinstance(value, list) else value


def _marked(example: Example) -> Example:
    """The example with marks around the texts of its turns."""
    call_marks = map(chr, count(_FIRST_CALL_MARK))
    turns = (_marked_turn(number, message, call_marks) for number, message in enumerate(example.messages))
    return replace(example, messages=tuple(turns))


def _marked_turn(number: int, message: Message, call_marks: Iterator[str]) -> Message:
    if not _is_located(message):
        return message
    base = _FIRST_MARK + number * _MARKS_PER_TURN
    content = _marked_text(message.content, base)
    if message.is_plain:
        return Message(message.role, content, message.loss)
    closing = chr(base + 4)
    calls = tuple(
        ToolCall(next(call_marks) + call.name, _with_strings(call.arguments, lambda text: text + closing), call.id)
        for call in message.tool_calls
    )
    return replace(message, content=content, reasoning=_marked_text(message.reasoning, base + 2), tool_calls=calls)


def _marked_text(text: str, base: int) -> str:
    """The text with marks inside its outer white space and around what <think> tags separate."""
    opening, closing = chr(base), chr(base + 1)
    if "think>" in text:
        return "".join(_wrapped(part, opening, closing) for part in _THINK_TAG.split(text))
    return _wrapped(text, opening, closing)


def _wrapped(text: str, opening: str, closing: str) -> str:
    core = text.strip()
    if not core or _THINK_TAG.fullmatch(core):
        return text
    begin = text.index(core)
    return f"{text[:begin]}{opening}{core}{closing}{text[begin + len(core) :]}"


def _read_marks(marked: str, example: Example) -> Places:
    """The places of the marks in the text without them."""
    found = Places()
    parts = (found.content, found.reasoning, found.calls)
    turns_of_calls = [number for number, message in enumerate(example.messages) for _ in message.tool_calls]
    known: set[str] = set()
    for before, match in enumerate(_MARK.finditer(marked)):
        at, mark = match.start() - before, match[0]
        if ord(mark) >= _FIRST_MARK:
            number, kind = divmod(ord(mark) - _FIRST_MARK, _MARKS_PER_TURN)
            part = parts[kind // 2]
        elif mark in known:
            continue
        else:
            known.add(mark)
            number, part = turns_of_calls[ord(mark) - _FIRST_CALL_MARK], found.calls
            found.call_counts[number] = found.call_counts.get(number, 0) + 1
        begin, end = part.get(number, (at, at))
        part[number] = (min(begin, at), max(end, at))
    return found
