"""Command R: single digits before GPT-2's split, on NFC."""

from tokenizers import normalizers

from tests.unit.trainer.families.building import Family, byte_level, single_digits, special

NAMES = (
    "<PAD>",
    "<UNK>",
    "<CLS>",
    "<SEP>",
    "<MASK_TOKEN>",
    "<BOS_TOKEN>",
    "<EOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
)

FAMILY = Family(
    name="command_r",
    model_type="cohere",
    tokenizer=lambda: byte_level(
        single_digits(), normalizer=normalizers.NFC(), first=special(*NAMES), bos="<BOS_TOKEN>"
    ),
    config={
        "tokenizer_class": "CohereTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": "<BOS_TOKEN>",
        "eos_token": "<|END_OF_TURN_TOKEN|>",
        "pad_token": "<PAD>",
        "unk_token": None,
        "legacy": True,
        "clean_up_tokenization_spaces": False,
    },
    examples=("CohereForAI/c4ai-command-r-v01", "CohereForAI/c4ai-command-r7b-12-2024"),
)
