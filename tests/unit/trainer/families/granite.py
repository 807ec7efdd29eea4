"""Granite 3: single digits before GPT-2's split."""

from tests.unit.trainer.families.building import Family, byte_level, single_digits, special

FAMILY = Family(
    name="granite",
    model_type="granite",
    tokenizer=lambda: byte_level(
        single_digits(),
        first=special("<|end_of_text|>", "<fim_prefix>"),
        last=special("<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
    ),
    config={
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|end_of_text|>",
        "eos_token": "<|end_of_text|>",
        "pad_token": "<|end_of_text|>",
        "unk_token": "<|end_of_text|>",
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
    },
    examples=("ibm-granite/granite-3.3-8b-instruct",),
)
