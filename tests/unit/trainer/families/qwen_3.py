"""Qwen 3: Qwen 2's tokenizer with tokens for thinking and tools."""

from tokenizers import normalizers

from tests.unit.trainer.families.building import Family, byte_level, isolated, plain, special
from tests.unit.trainer.families.patterns import SINGLE_DIGIT

FAMILY = Family(
    name="qwen_3",
    model_type="qwen3",
    tokenizer=lambda: byte_level(
        isolated(SINGLE_DIGIT),
        normalizer=normalizers.NFC(),
        last=[
            *special("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            *plain("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
        ],
    ),
    config={
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "clean_up_tokenization_spaces": False,
    },
    examples=("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"),
)
