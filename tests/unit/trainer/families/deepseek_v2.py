# ruff: noqa: RUF001
"""DeepSeek V2 and LLM: byte-level BPE after six splits, digits alone."""

from tokenizers import Regex, pre_tokenizers

from tests.unit.trainer.families.building import Family, byte_level, special
from tests.unit.trainer.families.patterns import DEEPSEEK_LLM

NAMES = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")

FAMILY = Family(
    name="deepseek_v2",
    model_type="deepseek_v2",
    tokenizer=lambda: byte_level(
        pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in DEEPSEEK_LLM),
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        last=special(*NAMES),
        bos=NAMES[0],
    ),
    config={
        "tokenizer_class": "LlamaTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": NAMES[0],
        "eos_token": NAMES[1],
        "pad_token": NAMES[1],
        "unk_token": None,
        "legacy": True,
        "clean_up_tokenization_spaces": False,
    },
    examples=("deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek-ai/deepseek-llm-7b-chat"),
)
