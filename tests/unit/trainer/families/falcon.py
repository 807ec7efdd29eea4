"""Falcon: punctuation alone, GPT-2's split, and digits in groups of three."""

from tokenizers import Regex, pre_tokenizers

from tests.unit.trainer.families.building import Family, byte_level, special

FAMILY = Family(
    name="falcon",
    model_type="falcon",
    tokenizer=lambda: byte_level(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation("contiguous"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
                pre_tokenizers.Digits(individual_digits=False),
                pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
            ]
        ),
        first=special(">>TITLE<<", ">>ABSTRACT<<", ">>QUESTION<<", "<|endoftext|>"),
    ),
    config={
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "eos_token": "<|endoftext|>",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": True,
    },
    examples=("tiiuae/falcon-7b-instruct",),
)
