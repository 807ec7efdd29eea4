"""Mistral Nemo: the Tekken tokenizer, byte-level BPE split at changes of case."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, special
from tests.unit.trainer.families.patterns import TEKKEN

NAMES = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
)

FAMILY = Family(
    name="mistral_nemo",
    model_type="mistral",
    tokenizer=lambda: byte_level(isolated(TEKKEN), first=special(*NAMES), bos="<s>", ignore_merges=True),
    config={
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("mistralai/Mistral-Nemo-Instruct-2407", "mistralai/Ministral-8B-Instruct-2410"),
)
