# ruff: noqa: RUF001
"""DeepSeek V3 and R1: byte-level BPE after three splits."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, plain, special
from tests.unit.trainer.families.patterns import DEEPSEEK_V3

NAMES = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")
TURNS = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")

FAMILY = Family(
    name="deepseek_v3",
    model_type="deepseek_v3",
    tokenizer=lambda: byte_level(isolated(*DEEPSEEK_V3), first=special(*NAMES), last=plain(*TURNS), bos=NAMES[0]),
    config={
        "tokenizer_class": "LlamaTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<｜begin▁of▁sentence｜>",
        "eos_token": "<｜end▁of▁sentence｜>",
        "pad_token": "<｜end▁of▁sentence｜>",
        "legacy": True,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
    },
    examples=("deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"),
)
