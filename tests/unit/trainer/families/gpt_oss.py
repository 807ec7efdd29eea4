"""gpt-oss: the o200k split, which knows changes of case and contractions."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, special
from tests.unit.trainer.families.patterns import O200K

NAMES = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)

FAMILY = Family(
    name="gpt_oss",
    model_type="gpt_oss",
    tokenizer=lambda: byte_level(isolated(O200K), last=special(*NAMES), ignore_merges=True),
    config={
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("openai/gpt-oss-20b",),
)
