"""Qwen 2 and 2.5: byte-level BPE with single digits; text is brought to the Unicode form NFC."""

from tokenizers import normalizers

from tests.unit.trainer.families.building import Family, byte_level, isolated, plain, special
from tests.unit.trainer.families.patterns import SINGLE_DIGIT

FAMILY = Family(
    name="qwen_2",
    model_type="qwen2",
    tokenizer=lambda: byte_level(
        isolated(SINGLE_DIGIT),
        normalizer=normalizers.NFC(),
        last=[*special("<|endoftext|>", "<|im_start|>", "<|im_end|>"), *plain("<tool_call>", "</tool_call>")],
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
    examples=("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
)
