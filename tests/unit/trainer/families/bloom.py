"""BLOOM: byte-level BPE of words, which may include digits and letters of several scripts."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, special
from tests.unit.trainer.families.patterns import BLOOM

FAMILY = Family(
    name="bloom",
    model_type="bloom",
    tokenizer=lambda: byte_level(isolated(BLOOM), first=special("<unk>", "<s>", "</s>", "<pad>")),
    config={
        "tokenizer_class": "BloomTokenizer",
        "add_prefix_space": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("bigscience/bloomz-560m",),
)
