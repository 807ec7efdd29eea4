"""OLMo 1: GPT-NeoX's tokenizer with tokens for removed personal data."""

from tokenizers import normalizers

from tests.unit.trainer.families.building import Family, byte_level, plain, special

FAMILY = Family(
    name="olmo",
    model_type="olmo",
    tokenizer=lambda: byte_level(
        normalizer=normalizers.NFC(),
        first=special("|||IP_ADDRESS|||", "<|padding|>"),
        last=[
            *plain(*(" " * count for count in range(24, 1, -1)), normalized=True),
            *plain("|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||"),
            *special("<|endoftext|>"),
        ],
    ),
    config={
        "tokenizer_class": "GPTNeoXTokenizer",
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|padding|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": True,
    },
    examples=("allenai/OLMo-7B-0724-Instruct-hf", "allenai/OLMoE-1B-7B-0924-Instruct"),
)
