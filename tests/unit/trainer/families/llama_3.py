"""Llama 3: byte-level BPE split as GPT-4 does; a word that is a token is not split."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, special
from tests.unit.trainer.families.patterns import CL100K

NAMES = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)

FAMILY = Family(
    name="llama_3",
    model_type="llama",
    tokenizer=lambda: byte_level(isolated(CL100K), last=special(*NAMES), bos="<|begin_of_text|>", ignore_merges=True),
    config={
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
    },
    examples=("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"),
)
