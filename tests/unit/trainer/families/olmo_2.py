"""OLMo 2: GPT-4's split, and a class of GPT-2."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, plain, special
from tests.unit.trainer.families.patterns import CL100K

FAMILY = Family(
    name="olmo_2",
    model_type="olmo2",
    tokenizer=lambda: byte_level(
        isolated(CL100K),
        last=[*special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"), *plain("|||EMAIL_ADDRESS|||")],
    ),
    config={
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("allenai/OLMo-2-1124-7B-Instruct",),
)
