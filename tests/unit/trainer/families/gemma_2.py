"""Gemma 2: Gemma's tokenizer."""

from tokenizers import Tokenizer, pre_tokenizers

from tests.unit.trainer.families.building import SPACE, Family, plain, sentencepiece

FIRST = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")


def tokenizer(first: tuple[str, ...]) -> Tokenizer:
    """Runs of line breaks and of spaces are added tokens, as in the published vocabulary."""
    runs = [*("\n" * count for count in (1, 2, 3, 4)), *(SPACE * count for count in (2, 3, 4, 5, 6, 7, 8))]
    found = sentencepiece(prefix="never", first=first, pieces=runs, last=plain(*runs), bos="<bos>")
    found.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return found


FAMILY = Family(
    name="gemma_2",
    model_type="gemma2",
    tokenizer=lambda: tokenizer(FIRST),
    config={
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("google/gemma-2-9b-it",),
)
