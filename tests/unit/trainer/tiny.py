"""A tiny random Llama with a byte-level BPE tokenizer, created within a second, and training rows."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SPECIAL = ("<|begin|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
MARKED_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PLAIN_TEMPLATE = MARKED_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
QUESTIONS = ("what is the colour of", "how tall is", "where lives", "who painted", "when was born", "what eats")
SUBJECTS = ("the red fox", "a blue whale", "my old house", "the green tree", "an apple", "the moon", "this river")


def make_tokenizer(template: str | None = MARKED_TEMPLATE) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=346,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([f"{question} {subject}" for question in QUESTIONS for subject in SUBJECTS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[2],
        additional_special_tokens=list(SPECIAL[3:]),
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def make_config(family: str = "llama") -> PreTrainedConfig:
    sizes = {
        "vocab_size": 346,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
        "max_position_embeddings": 512,
    }
    if family == "qwen3":
        return Qwen3Config(**sizes, head_dim=32)
    return (Qwen2Config if family == "qwen2" else LlamaConfig)(**sizes)


SMALL: dict[str, Any] = {
    "vocab_size": 346,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
"""Sizes of tests with other architectures; most accept these names."""


def save_random(settings: PreTrainedConfig, directory: Path) -> Path:
    """Save a random model of some architecture with the tokenizer of the others; the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(settings).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def make_model(family: str = "llama") -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(make_config(family), attn_implementation="sdpa").eval()


def save_tiny_model(directory: Path, template: str | None = MARKED_TEMPLATE) -> Path:
    make_model().save_pretrained(directory)
    make_tokenizer(template).save_pretrained(directory)
    return directory


def questions(count: int, start: int = 0) -> list[dict[str, object]]:
    """Return distinct rows of `messages` with different lengths."""
    rows: list[dict[str, object]] = []
    for number in range(start, start + count):
        question = f"{QUESTIONS[number % 6]} {SUBJECTS[number % 7]} {number}"
        answer = " ".join([SUBJECTS[(number * 3) % 7]] * (1 + number % 4))
        rows.append({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
    return rows


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
