"""Phi-4: GPT-4's split, and a class of GPT-2; control tokens swallow the white space around them."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, special
from tests.unit.trainer.families.patterns import CL100K

FAMILY = Family(
    name="phi_4",
    model_type="phi3",
    tokenizer=lambda: byte_level(
        isolated(CL100K),
        last=special("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>", lstrip=True, rstrip=True),
    ),
    config={
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("microsoft/phi-4",),
)
