"""GLM-4: GPT-4's split."""

from tests.unit.trainer.families.building import Family, byte_level, isolated, plain, special
from tests.unit.trainer.families.patterns import CL100K

FAMILY = Family(
    name="glm_4",
    model_type="glm4",
    tokenizer=lambda: byte_level(
        isolated(CL100K),
        last=[
            *special("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
            *plain("<think>", "</think>"),
        ],
    ),
    config={
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": False,
        "eos_token": "<|user|>",
        "pad_token": "<|endoftext|>",
        "remove_space": False,
        "clean_up_tokenization_spaces": False,
    },
    examples=("THUDM/GLM-4-9B-0414", "THUDM/glm-4-9b-chat-hf"),
)
