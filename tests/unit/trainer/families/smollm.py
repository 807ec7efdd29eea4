"""SmolLM 1 and 2: single digits before GPT-2's split, which the class of GPT-2 does not know."""

from tests.unit.trainer.families.building import Family, byte_level, single_digits, special

FAMILY = Family(
    name="smollm",
    model_type="llama",
    tokenizer=lambda: byte_level(
        single_digits(), first=special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>")
    ),
    config={
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("HuggingFaceTB/SmolLM2-1.7B-Instruct", "HuggingFaceTB/SmolLM-135M-Instruct"),
)
