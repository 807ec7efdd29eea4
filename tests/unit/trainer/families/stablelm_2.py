"""StableLM 2: Qwen's split without NFC, and a class of GPT-2."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, special
from tests.unit.trainer.families.patterns import SINGLE_DIGIT

FAMILY = Family(
    name="stablelm_2",
    model_type="stablelm",
    tokenizer=lambda: byte_level(isolated(SINGLE_DIGIT), last=special("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    config={
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("stabilityai/stablelm-2-1_6b-chat",),
)
