from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tests.unit.trainer import tiny
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import ConfigurationError, DataError, RowError
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.formats.example import Example, Message

TOKENIZERS = {template: tiny.make_tokenizer(template) for template in (tiny.MARKED_TEMPLATE, tiny.PLAIN_TEMPLATE)}
ROW = Row("rows.jsonl", 7, {})
SINGLE = Example(messages=(Message("user", "who painted the moon"), Message("assistant", "a blue whale")))
MULTI = Example(
    messages=(
        Message("system", "be brief"),
        *SINGLE.messages,
        Message("user", "when was born"),
        Message("assistant", "this river"),
    )
)
# What Qwen3's template does: an empty <think> block before the last answer only, a line break after every turn.
THINKING_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
FORGETFUL_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if loop.last %}{{ message['content'] }}{% else %}...{% endif %}{% endfor %}"
)
PICKY_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + tiny.PLAIN_TEMPLATE
)


def learned(
    tokenizer: PreTrainedTokenizerFast, example: Example, train_on: Literal["completions", "all"] = "completions"
) -> list[str]:
    """The runs of tokens that carry loss, as text."""
    encoded = Encoder(tokenizer, train_on, "tiny").encode(ROW, example)
    runs, current = [], []
    for token, loss in [*zip(encoded.tokens, encoded.loss, strict=True), (0, False)]:
        if loss:
            current.append(token)
        elif current:
            runs.append(tokenizer.decode(current))
            current = []
    return runs


@pytest.mark.parametrize("template", [tiny.MARKED_TEMPLATE, tiny.PLAIN_TEMPLATE])
@pytest.mark.parametrize("example", [SINGLE, MULTI])
def test_answers_and_end_of_turn_carry_loss(template: str, example: Example) -> None:
    answers = [f"{message.content}<|end|>" for message in example.messages if message.role == "assistant"]
    assert learned(tiny.make_tokenizer(template), example) == answers


def test_generation_marks_and_prefixes_give_the_same_tokens() -> None:
    marked, plain = (
        Encoder(tiny.make_tokenizer(template), "completions", "tiny").encode(ROW, MULTI)
        for template in (tiny.MARKED_TEMPLATE, tiny.PLAIN_TEMPLATE)
    )
    assert marked == plain
    assert marked.tokens == list(
        tiny.make_tokenizer()(
            "<|begin|><|system|>be brief<|end|><|user|>who painted the moon<|end|><|assistant|>a blue whale<|end|>"
            "<|user|>when was born<|end|><|assistant|>this river<|end|>",
            add_special_tokens=False,
        )["input_ids"]
    )


def test_template_that_renders_the_last_answer_differently() -> None:
    tokenizer = tiny.make_tokenizer(THINKING_TEMPLATE)
    assert learned(tokenizer, SINGLE) == ["<think></think>a blue whale<|end|>"]
    assert learned(tokenizer, MULTI) == ["a blue whale<|end|>", "<think></think>this river<|end|>"]


def test_template_that_drops_earlier_turns_is_refused() -> None:
    with pytest.raises(RowError, match=r"row 7: the chat template of tiny leaves out the text of turn 3 \(assistant\)"):
        learned(tiny.make_tokenizer(FORGETFUL_TEMPLATE), MULTI)
    assert learned(tiny.make_tokenizer(FORGETFUL_TEMPLATE), MULTI, "all")


def test_training_on_all_tokens() -> None:
    for template in (tiny.MARKED_TEMPLATE, tiny.PLAIN_TEMPLATE):
        encoded = Encoder(tiny.make_tokenizer(template), "all", "tiny").encode(ROW, MULTI)
        assert all(encoded.loss)


def test_text_rows_end_with_eos_and_need_no_template() -> None:
    tokenizer = tiny.make_tokenizer(None)
    encoded = Encoder(tokenizer, "completions", "tiny").encode(ROW, Example(text="the moon"))
    assert tokenizer.decode(encoded.tokens) == "the moon<|end|>"
    assert all(encoded.loss)
    twice = Encoder(tokenizer, "completions", "tiny").encode(ROW, Example(text="the moon<|end|>"))
    assert twice.tokens == encoded.tokens


@pytest.mark.parametrize("adds_special", [True, False])
def test_a_text_has_one_token_at_its_beginning_and_one_at_its_end(adds_special: bool) -> None:
    tokenizer = tiny.make_tokenizer(None)
    begin, end, *_ = tiny.SPECIAL
    if adds_special:
        processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            special_tokens=[(begin, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)],
        )
        tokenizer.backend_tokenizer.post_processor = processor
    plain = f"{begin}the moon{end}"
    for text in ("the moon", plain, f"{plain}\n", f"{plain} \n\n", f"{begin}the moon", f"the moon{end}\n"):
        encoded = Encoder(tokenizer, "completions", "tiny").encode(ROW, Example(text=text))
        has_begin = adds_special or text.startswith(begin)
        assert tokenizer.decode(encoded.tokens) == (plain if has_begin else plain.removeprefix(begin))
        assert all(encoded.loss)


def test_a_row_that_teaches_only_the_end_is_a_warning() -> None:
    glued = "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ eos_token }}"
    encoder = Encoder(tiny.make_tokenizer(glued), "completions", "tiny")
    row = Example(messages=(Message("user", "where is the"), Message("assistant", " moon")))
    assert encoder.encode(ROW, row).warnings == ()
    row = Example(messages=(Message("user", "where is th"), Message("assistant", "e")))
    assert learned(tiny.make_tokenizer(glued), row) == ["<|end|>"]
    assert encoder.encode(ROW, row).warnings == ("OnlyEndLearned",)
    blank = Example(messages=(Message("user", "where"), Message("assistant", " ")))
    assert (
        "OnlyEndLearned"
        in Encoder(tiny.make_tokenizer(tiny.PLAIN_TEMPLATE), "completions", "tiny").encode(ROW, blank).warnings
    )


def test_conversations_need_a_template() -> None:
    with pytest.raises(ConfigurationError, match="tokenizer of pvc://models/tiny has no chat template"):
        Encoder(tiny.make_tokenizer(None), "completions", "pvc://models/tiny").encode(ROW, SINGLE)
    with pytest.raises(ConfigurationError, match="chat template of tiny does not work"):
        Encoder(tiny.make_tokenizer("{% for x in %}"), "completions", "tiny").encode(ROW, SINGLE)


def test_error_names_the_row_that_the_template_refuses() -> None:
    with pytest.raises(DataError, match=r"row 7: .*refuses turn 1 \(system\): System role not supported"):
        learned(tiny.make_tokenizer(PICKY_TEMPLATE), MULTI)
    with pytest.raises(DataError, match="row 7"):
        learned(tiny.make_tokenizer(PICKY_TEMPLATE + "{% generation %}{% endgeneration %}"), MULTI)


def test_prompt_equals_the_tokens_before_an_answer() -> None:
    tokenizer = tiny.make_tokenizer()
    encoder = Encoder(tokenizer, "completions", "tiny")
    encoded = encoder.encode(ROW, SINGLE)
    prompt = encoder.prompt(replace(SINGLE, messages=SINGLE.messages[:1]))
    assert encoded.tokens[: len(prompt)] == prompt
    assert encoded.loss.index(True) == len(prompt)


def test_token_that_starts_before_the_answer_carries_no_loss() -> None:
    glued = "{% for message in messages %}{% if message['role'] == 'assistant' %}{% generation %}"
    glued += "{{ message['content'] + eos_token }}{% endgeneration %}"
    glued += "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    example = Example(messages=(Message("user", "what is t"), Message("assistant", "he colour")))
    assert learned(tiny.make_tokenizer(glued), example) == [" colour<|end|>"]


def test_answers_with_loss_false_carry_no_loss() -> None:
    messages = (*MULTI.messages[:2], Message("assistant", "a blue whale", loss=False), *MULTI.messages[3:])
    for template in (tiny.MARKED_TEMPLATE, tiny.PLAIN_TEMPLATE):
        tokenizer = tiny.make_tokenizer(template)
        assert learned(tokenizer, Example(messages=messages)) == ["this river<|end|>"]
        before, after = learned(tokenizer, Example(messages=messages), "all")
        assert before == "<|begin|><|system|>be brief<|end|><|user|>who painted the moon<|end|><|assistant|>"
        assert after == "<|user|>when was born<|end|><|assistant|>this river<|end|>"


def test_masked_questions_carry_no_loss_when_everything_else_does() -> None:
    messages = (*MULTI.messages[:1], replace(MULTI.messages[1], loss=False), *MULTI.messages[2:])
    for template in (tiny.MARKED_TEMPLATE, tiny.PLAIN_TEMPLATE):
        before, after = learned(tiny.make_tokenizer(template), Example(messages=messages), "all")
        assert before == "<|begin|><|system|>be brief<|end|><|user|>"
        assert after.startswith("<|end|><|assistant|>a blue whale<|end|>")


def test_marks_that_are_not_one_for_each_answer_are_not_used_for_masks() -> None:
    twice = tiny.MARKED_TEMPLATE.replace(
        "{{ message['content'] + eos_token }}{% endgeneration %}",
        "{{ message['content'] }}{% endgeneration %}{% generation %}{{ eos_token }}{% endgeneration %}",
    )
    tokenizer = tiny.make_tokenizer(twice)
    assert learned(tokenizer, MULTI) == ["a blue whale<|end|>", "this river<|end|>"]
    messages = (*MULTI.messages[:2], replace(MULTI.messages[2], loss=False), *MULTI.messages[3:])
    assert learned(tokenizer, Example(messages=messages)) == ["this river<|end|>"]


def test_train_on_of_a_row_overrides_the_setting() -> None:
    tokenizer = tiny.make_tokenizer()
    assert learned(tokenizer, replace(SINGLE, train_on="completions"), "all") == ["a blue whale<|end|>"]
    (everything,) = learned(tokenizer, replace(SINGLE, train_on="all"))
    assert everything.startswith("<|begin|><|user|>who")


def test_rows_of_tokens_need_no_tokenizer() -> None:
    encoded = Encoder(None, "completions", "none").encode(ROW, Example(tokens=(5, 6), token_loss=(False, True)))
    assert (encoded.tokens, encoded.loss) == ([5, 6], [False, True])


words = st.text(st.sampled_from("abé \n\U0001f600<|"), max_size=12)
examples = st.one_of(
    st.builds(Example, text=words.filter(bool)),
    st.builds(Example, tokens=st.just((7, 8)), token_loss=st.just((True, True))),
    st.builds(
        lambda question, answer, loss, train_on: Example(
            messages=(
                *(Message("user", question), Message("assistant", answer, loss)),
                *(Message("user", answer), Message("assistant", question + "!")),
            ),
            train_on=train_on,
        ),
        *(words, words.filter(bool), st.booleans(), st.sampled_from([None, "all", "completions"])),
    ),
)


@pytest.mark.parametrize("template", [tiny.MARKED_TEMPLATE, tiny.PLAIN_TEMPLATE])
@given(some=st.lists(examples, max_size=6))
def test_batched_encoding_equals_single_encoding(template: str, some: list[Example]) -> None:
    encoder = Encoder(TOKENIZERS[template], "completions", "tiny")
    together = encoder.encode_all([(ROW, example) for example in some])
    assert together == [encoder.encode(ROW, example) for example in some]
    assert all(len(encoded.tokens) == len(encoded.loss) for encoded in together)


@given(words, words.filter(bool))
def test_loss_span_equals_the_answer_for_any_content(question: str, answer: str) -> None:
    tokenizer = TOKENIZERS[tiny.MARKED_TEMPLATE]
    example = Example(messages=(Message("user", question), Message("assistant", answer)))
    assert learned(tokenizer, example) == [f"{answer}<|end|>"]
