"""Mistral 7B v0.3: control tokens for instructions and tools; a space only before the first piece of text."""

from tests.unit.trainer.families.building import Family, sentencepiece

FAMILY = Family(
    name="mistral_v3",
    model_type="mistral",
    tokenizer=lambda: sentencepiece(
        prefix="first",
        first=(
            "<unk>",
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[TOOL_CALLS]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
    ),
    config={
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
        "clean_up_tokenization_spaces": False,
    },
    examples=("mistralai/Mistral-7B-Instruct-v0.3",),
)
