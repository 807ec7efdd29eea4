"""Qwen 3: Qwen 2's tokenizer with tokens for thinking and tools."""

from dataclasses import replace

from tokenizers import normalizers

from tests.unit.trainer.families import qwen_2
from tests.unit.trainer.families.building import byte_level, isolated, plain, special
from tests.unit.trainer.families.patterns import SINGLE_DIGIT

FAMILY = replace(
    qwen_2.FAMILY,
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
    examples=("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"),
)
