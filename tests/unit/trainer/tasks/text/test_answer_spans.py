"""Answers in the texts of the most used chat templates: the model learns what it will have to generate, and no more."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainer.families import FAMILIES
from tests.unit.trainer.families.building import TEMPLATES
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import RowError
from trainyard_trainer.tasks.text.answer_spans import AnswerFinder, NotLocatedError
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.chat_template import ChatTemplate
from trainyard_trainer.tasks.text.formats.example import Example, Message, ToolCall
from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer

ROW = Row("rows.jsonl", 7, {})
TOKENIZER_OF = {"qwen_3_thinking": "qwen_3"}
"""Templates that share the tokenizer of another family."""
CHATS = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
DEEPSEEK_END = "<|end\u2581of\u2581sentence|>".replace("|", "\uff5c")
# What a template writes around the content of an answer, and the model generates: (before, after, after the last one).
LEARNED: Mapping[str, tuple[str, str, str]] = {
    "command_r": ("", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    "deepseek_v2": (" ", DEEPSEEK_END, DEEPSEEK_END),
    "deepseek_v3": ("", DEEPSEEK_END, DEEPSEEK_END),
    "falcon": (" ", "", ""),
    "gemma": ("", "<end_of_turn>", "<end_of_turn>"),
    "gemma_2": ("", "<end_of_turn>", "<end_of_turn>"),
    "gemma_3": ("", "<end_of_turn>", "<end_of_turn>"),
    "glm_4": ("\n", "", ""),
    "gpt_oss": ("<|channel|>final<|message|>", "<|end|>", "<|return|>"),
    "granite": ("", "<|end_of_text|>", "<|end_of_text|>"),
    "internlm_2": ("", "<|im_end|>", "<|im_end|>"),
    "llama_2": (" ", " </s>", " </s>"),
    "llama_3": ("", "<|eot_id|>", "<|eot_id|>"),
    "minicpm": ("", "", ""),
    "mistral": (" ", "</s>", "</s>"),
    "mistral_nemo": ("", "</s>", "</s>"),
    "mistral_v3": (" ", "</s>", "</s>"),
    "mixtral": (" ", "</s>", "</s>"),
    "olmo_2": ("", "<|endoftext|>", "<|endoftext|>"),
    "phi_3": ("", "<|end|>", "<|end|>"),
    "phi_4": ("", "<|im_end|>", "<|im_end|>"),
    "qwen_2": ("", "<|im_end|>", "<|im_end|>"),
    "qwen_3": ("", "<|im_end|>", "<|im_end|>"),
    "qwen_3_thinking": ("", "<|im_end|>", "<|im_end|>"),
    "smollm": ("", "<|im_end|>", "<|im_end|>"),
    "stablelm_2": ("", "<|endoftext|>", "<|endoftext|>"),
    "yi": ("", "<|im_end|>", "<|im_end|>"),
}
EMPTY_THOUGHT = {"qwen_3": "<think>\n\n</think>\n\n", "qwen_3_thinking": "\n</think>\n\n"}
"""What the last answer has before its content where it has no reasoning."""
STRICT = {"gemma", "gemma_2", "gemma_3", "llama_2", "mistral", "mistral_nemo", "mistral_v3", "mixtral"}
"""Templates that refuse an answer as the first turn."""
QUESTION = Message("user", "what is the colour of the sky")
CALL = ToolCall("weather", {"city": "Porto", "days": 2})
TOOLS = ({"type": "function", "function": {"name": "weather", "description": "Say it.", "parameters": {}}},)


@cache
def tokenizer_of(name: str) -> Any:
    family = FAMILIES[TOKENIZER_OF.get(name, name)]
    with TemporaryDirectory() as directory:
        tokenizer = load_tokenizer(family.save(Path(directory)), name)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    return tokenizer


@cache
def encoder_of(name: str, train_on: Any = "completions") -> Encoder:
    return Encoder(tokenizer_of(name), train_on, name)


def learned(name: str, example: Example, train_on: Any = "completions") -> list[str]:
    """The runs of tokens with loss, as text."""
    encoded = encoder_of(name, train_on).encode(ROW, example)
    runs: list[list[int]] = [[]]
    for token, loss in zip(encoded.tokens, encoded.loss, strict=True):
        if loss:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    decode = tokenizer_of(name).decode
    return [decode(run, clean_up_tokenization_spaces=False) for run in runs if run]


def wanted(name: str, contents: Sequence[str]) -> list[str]:
    before, after, after_last = LEARNED[name]
    texts = [f"{before}{content}{after}" for content in contents[:-1]]
    return [*texts, f"{before}{EMPTY_THOUGHT.get(name, '')}{contents[-1]}{after_last}"]


def same(found: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether texts are equal but for white space at the beginning, which may be part of the token before."""
    return [text.lstrip() for text in found] == [text.lstrip() for text in expected]


def chat(*contents: str) -> Example:
    roles = ("user", "assistant")
    return Example(messages=tuple(Message(roles[at % 2], content) for at, content in enumerate(contents)))  # type: ignore[arg-type]


def test_every_template_belongs_to_a_tokenizer() -> None:
    assert set(CHATS) == LEARNED.keys()
    assert {TOKENIZER_OF.get(name, name) for name in CHATS} <= FAMILIES.keys()


@pytest.mark.parametrize("name", CHATS)
def test_the_answer_of_a_single_turn_is_learned(name: str) -> None:
    found = learned(name, chat("who painted it", "the old fox"))
    assert same(found, wanted(name, ["the old fox"])), found


@pytest.mark.parametrize("name", CHATS)
def test_every_answer_of_several_turns_is_learned(name: str) -> None:
    found = learned(name, chat("who painted it", "the old fox", "surely", "yes surely", "why", "it did"))
    assert same(found, wanted(name, ["the old fox", "yes surely", "it did"])), found


@pytest.mark.parametrize("name", CHATS)
def test_masked_answers_are_context(name: str) -> None:
    example = chat("who painted it", "the old fox", "surely", "yes surely", "why", "it did")
    messages = list(example.messages)
    messages[1] = replace(messages[1], loss=False)
    messages[3] = replace(messages[3], loss=False)
    found = learned(name, Example(messages=tuple(messages)))
    assert same(found, wanted(name, ["it did"])), found
    everything = "".join(learned(name, Example(messages=tuple(messages)), "all"))
    assert "the old fox" not in everything
    assert "yes surely" not in everything
    assert "who painted it" in everything


@pytest.mark.parametrize("name", CHATS)
def test_an_answer_may_be_the_first_turn(name: str) -> None:
    example = Example(messages=(Message("assistant", "good day"), *chat("who painted it", "the old fox").messages))
    if name in STRICT:
        with pytest.raises(RowError, match=r"row 7: the chat template of .* refuses turn 1 \(assistant\)"):
            learned(name, example)
        return
    first, last = learned(name, example)
    assert first.lstrip(" ").endswith(f"good day{LEARNED[name][1]}")
    assert "user" not in first.removesuffix(LEARNED[name][1])
    assert same([last], wanted(name, ["the old fox"]))


@pytest.mark.parametrize("name", CHATS)
def test_white_space_around_answers_is_no_obstacle(name: str) -> None:
    found = learned(name, chat("who", "\n\n the old fox \n", "surely", "  yes"))
    assert len(found) == 2
    for text, content in zip(found, ("the old fox", "yes"), strict=True):
        assert content in text
        assert "who" not in text
    assert found[0].endswith(LEARNED[name][1])


REASONING = {
    "qwen_3": "<think>\nit is bright\n</think>\n\nblue<|im_end|>",
    "qwen_3_thinking": "it is bright\n</think>\n\nblue<|im_end|>",
    "gpt_oss": "<|channel|>analysis<|message|>it is bright<|end|><|start|>assistant"
    "<|channel|>final<|message|>blue<|return|>",
}


@pytest.mark.parametrize("name", REASONING)
def test_reasoning_is_learned_where_the_template_renders_it(name: str) -> None:
    answer = Message("assistant", "blue", reasoning="it is bright")
    assert learned(name, Example(messages=(QUESTION, answer))) == [REASONING[name]]
    inline = Message("assistant", "<think>\nit is bright\n</think>\n\nblue")
    if name != "gpt_oss":
        assert learned(name, Example(messages=(QUESTION, inline))) == [REASONING[name]]
    earlier, last = learned(name, Example(messages=(QUESTION, answer, QUESTION, answer)))
    assert (earlier, last) == (f"{LEARNED[name][0]}blue{LEARNED[name][1]}", REASONING[name])


def test_reasoning_that_is_left_out_is_a_warning() -> None:
    answer = Message("assistant", "blue", reasoning="it is bright")
    once, twice = Example(messages=(QUESTION, answer)), Example(messages=(QUESTION, answer, QUESTION, answer))
    assert encoder_of("qwen_3").encode(ROW, once).warnings == ()
    assert encoder_of("qwen_3").encode(ROW, twice).warnings == ("ReasoningLeftOut",)
    assert "ReasoningLeftOut" in encoder_of("llama_3").encode(ROW, once).warnings


JSON = '{"city": "Porto", "days": 2}'
CALLS = {
    "deepseek_v3": (
        "<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>weather\n```json\n"
        f"{JSON}\n```<|tool_call_end|><|tool_calls_end|>"
    ).translate({ord("|"): "\uff5c", ord("_"): "\u2581"})
    + DEEPSEEK_END,
    "glm_4": f"weather\n{JSON}",
    "gpt_oss": f" to=functions.weather<|channel|>commentary json<|message|>{JSON}<|call|>",
    "granite": f'<tool_call>\n{{"name": "weather", "arguments": {JSON}}}\n</tool_call><|end_of_text|>',
    "llama_3": f'{{"name": "weather", "parameters": {JSON}}}<|eot_id|>',
    "mistral_v3": f'[TOOL_CALLS] [{{"name": "weather", "arguments": {JSON}, "id": "000000000"}}]</s>',
    "mistral_nemo": f'[TOOL_CALLS][{{"name": "weather", "arguments": {JSON}, "id": "000000000"}}]</s>',
    "qwen_2": f'<tool_call>\n{{"name": "weather", "arguments": {JSON}}}\n</tool_call><|im_end|>',
    "qwen_3": f'<tool_call>\n{{"name": "weather", "arguments": {JSON}}}\n</tool_call><|im_end|>',
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_and_the_answer_after_the_result_are_learned(name: str) -> None:
    call, result = Message("assistant", "", tool_calls=(CALL,)), Message("tool", "warm")
    example = Example(messages=(QUESTION, call, result, Message("assistant", "blue")), tools=TOOLS)
    encoded = encoder_of(name).encode(ROW, example)
    assert not {"ToolsLeftOut", "ReasoningLeftOut", "ContentLeftOut"} & {*encoded.warnings} - {
        "ToolsLeftOut" if name == "deepseek_v3" else ""
    }
    found = learned(name, example)
    assert same(found, [CALLS[name], *wanted(name, ["blue"])]), found
    last = learned(name, Example(messages=(QUESTION, call), tools=TOOLS))
    assert last[0].endswith(CALLS[name].lstrip(" "))
    with_id = replace(call, tool_calls=(replace(CALL, id="call_abcdefghijkl"),))
    answered = (QUESTION, with_id, replace(result, tool_call_id="call_abcdefghijkl"), Message("assistant", "blue"))
    assert same(learned(name, Example(messages=answered, tools=TOOLS))[1:], wanted(name, ["blue"]))


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"gpt_oss", "llama_3"}))
def test_several_calls_of_one_turn_are_learned(name: str) -> None:
    call = Message("assistant", "", tool_calls=(CALL, ToolCall("weather", {"city": "Faro"})))
    example = Example(
        messages=(QUESTION, call, Message("tool", "warm"), Message("tool", "cold"), Message("assistant", "blue"))
    )
    calls, answer = learned(name, example)
    assert "Porto" in calls
    assert "Faro" in calls
    assert "warm" not in calls
    assert same([answer], wanted(name, ["blue"])), answer


@pytest.mark.parametrize("name", ["gpt_oss", "llama_3", "deepseek_v3", "phi_4", "smollm"])
def test_a_row_whose_calls_the_template_cannot_render_is_refused(name: str) -> None:
    calls = (CALL, ToolCall("weather", {"city": "Faro"})) if name in CALLS else (CALL,)
    content = "I will ask" if name == "deepseek_v3" else ""
    call = Message("assistant", content, tool_calls=calls)
    example = Example(messages=(QUESTION, call, Message("tool", "warm"), Message("assistant", "blue")))
    for train_on in ("completions", "all"):
        with pytest.raises(
            RowError, match=r"row 7: the chat template of \w+ (leaves out the tool calls of|refuses) turn 2"
        ):
            learned(name, example, train_on)


def test_tools_that_are_left_out_are_a_warning() -> None:
    example = Example(messages=chat("who", "the old fox").messages, tools=TOOLS)
    assert "ToolsLeftOut" in encoder_of("phi_4").encode(ROW, example).warnings
    assert "ToolsLeftOut" not in encoder_of("qwen_3").encode(ROW, example).warnings


def test_variables_of_a_row_reach_the_template() -> None:
    example = replace(chat("who", "the old fox"), template_options={"enable_thinking": False})
    assert learned("qwen_3", example) == ["the old fox<|im_end|>"]
    assert learned("qwen_3", chat("who", "the old fox")) == ["<think>\n\n</think>\n\nthe old fox<|im_end|>"]


def test_a_template_without_end_token_and_one_with_another_are_warnings() -> None:
    for name, warning in (("glm_4", "NoEndToken"), ("gemma", "OtherEndToken:<end_of_turn>"), ("phi_4", None)):
        found = encoder_of(name).encode(ROW, chat("who", "the old fox")).warnings
        assert found == (() if warning is None else (warning,))


# Contents that resemble what templates write and what they look for.
pieces = st.sampled_from(
    [
        *(
            "a",
            "the fox ",
            "\n",
            "  ",
            "é",
            "\U0001f600",
            "<",
            ">",
            "{",
            '"',
            "[/INST]",
            "[INST]",
            "</s>",
            "\U00100003",
        ),
        *("<|im_end|>", "<|im_start|>assistant\n", "<end_of_turn>", "<|assistant|>\n", "Assistant:", "<|end|>", "</b>"),
    ]
)
contents = st.lists(pieces, min_size=1, max_size=5).map("".join).filter(str.strip)
chats = st.lists(st.tuples(contents, contents), min_size=1, max_size=3)
FINDERS = {
    name: AnswerFinder(
        ChatTemplate(tokenizer_of(name), name),
        [str(token) for token in tokenizer_of(name).added_tokens_decoder.values()],
        tokenizer_of(name).eos_token,
    )
    for name in ("gemma", "llama_2", "mistral_v3", "phi_3", "qwen_3", "qwen_3_thinking", "gpt_oss", "falcon")
}


@pytest.mark.parametrize("name", FINDERS)
@settings(max_examples=40)
@given(turns=chats, system=st.booleans())
def test_any_answer_is_located_exactly(name: str, turns: list[tuple[str, str]], system: bool) -> None:
    head = [Message("system", "Be kind.")] if system and name != "gemma" else []
    example = Example(messages=(*head, *chat(*(text for pair in turns for text in pair)).messages))
    template = ChatTemplate(tokenizer_of(name), name)
    text = template.render(example)
    numbers = [number for number, message in enumerate(example.messages) if message.role == "assistant"]
    spans = list(FINDERS[name].answers(example, text, FINDERS[name].places(example, text), numbers))
    before, after, after_last = LEARNED[name]
    at = 0
    for number, (begin, end) in zip(numbers, spans, strict=True):
        assert at <= begin < end
        at = end
        inside, content = text[begin:end], example.messages[number].content
        prefix = before + (EMPTY_THOUGHT.get(name, "") if number == numbers[-1] else "")
        suffix = after_last if number == numbers[-1] else after
        assert inside in {
            f"{prefix}{one}{suffix}" for one in (content, content.strip(), content.lstrip("\n"), content.rstrip())
        }


odd = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant", "tool"]),
        st.lists(pieces | st.sampled_from(["<think>", "</think>", "<|channel|>"]), max_size=4).map("".join),
        st.booleans(),
        reasoning=st.sampled_from(["", "it is", " \n"]),
        tool_calls=st.sampled_from([(), (CALL,), (CALL, CALL)]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("name", ["qwen_3", "deepseek_v3", "mistral_v3", "gpt_oss"])
@settings(max_examples=40)
@given(messages=odd)
def test_any_row_is_located_or_refused_by_its_own_error(name: str, messages: list[Message]) -> None:
    turns = [one if one.role == "assistant" else replace(one, tool_calls=(), reasoning="") for one in messages]
    example = Example(messages=(QUESTION, *turns, Message("assistant", "blue")))
    sentence, encoded = "", None
    try:
        encoded = encoder_of(name).encode(ROW, example)
    except RowError as error:
        sentence = error.message
    assert encoded.has_loss if encoded else sentence.startswith("rows.jsonl, row 7: ")


def test_a_question_may_have_the_words_of_its_answer() -> None:
    example = chat("say blue", "blue", "say blue again: blue", "blue")
    found = learned("qwen_2", example)
    assert found == ["blue<|im_end|>", "blue<|im_end|>"]


def test_the_error_of_a_turn_without_place_has_its_number() -> None:
    finder, example = FINDERS["gemma"], chat("who", "the old fox")
    with pytest.raises(NotLocatedError, match="leaves out the text of") as caught:
        list(finder.answers(example, "another text", finder.places(example, "another text"), [1]))
    assert caught.value.number == 1


@pytest.mark.parametrize("name", FINDERS)
@settings(max_examples=40)
@given(turns=chats)
def test_the_short_way_finds_the_same_answers(name: str, turns: list[tuple[str, str]]) -> None:
    example = chat(*(text for pair in turns for text in pair))
    text = ChatTemplate(tokenizer_of(name), name).render(example)
    numbers = range(1, len(example.messages), 2)
    found = FINDERS[name].plain_answers(example, text)
    if found is not None:
        assert found == list(FINDERS[name].answers(example, text, FINDERS[name].places(example, text), numbers))


@pytest.mark.parametrize("name", sorted(set(FINDERS) - {"falcon"}))
def test_ordinary_rows_are_rendered_once(name: str) -> None:
    example = chat("who painted it", "the old fox", "surely", "yes surely")
    assert FINDERS[name].plain_answers(example, ChatTemplate(tokenizer_of(name), name).render(example)) is not None


spoken = st.text(st.sampled_from("abt \n\u00e9\U0001f600<|>{"), min_size=1, max_size=12).map(str.strip).filter(bool)


@pytest.mark.parametrize("name", ["phi_4", "granite", "llama_3", "qwen_2"])
@settings(max_examples=40)
@given(turns=st.lists(st.tuples(contents, spoken), min_size=1, max_size=3))
def test_tokens_with_loss_are_the_answers_and_their_ends(name: str, turns: list[tuple[str, str]]) -> None:
    end = LEARNED[name][1]
    found = learned(name, chat(*(text for pair in turns for text in pair)))
    assert found == [f"{answer}{end}" for _, answer in turns]
