"""GPT-NeoX and Pythia: byte-level BPE on NFC; runs of spaces are added tokens."""

from tokenizers import normalizers

from tests.unit.trainer.families.building import Family, byte_level, plain, special

FAMILY = Family(
    name="gpt_neox",
    model_type="gpt_neox",
    tokenizer=lambda: byte_level(
        normalizer=normalizers.NFC(),
        first=special("<|endoftext|>", "<|padding|>"),
        last=plain(*(" " * count for count in range(24, 1, -1)), normalized=True),
    ),
    config={
        "tokenizer_class": "GPTNeoXTokenizer",
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    },
    examples=("EleutherAI/pythia-1.4b", "EleutherAI/gpt-neox-20b"),
)
