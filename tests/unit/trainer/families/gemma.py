"""Gemma: SentencePiece BPE without a space before the text."""

from tokenizers import Tokenizer

from tests.unit.trainer.families.building import SPACE, Family, plain, sentencepiece

FIRST = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")


def tokenizer() -> Tokenizer:
    """Runs of line breaks and of spaces are added tokens, as in the published vocabulary."""
    runs = [*("\n" * count for count in (1, 2, 3, 4)), *(SPACE * count for count in (2, 3, 4, 5, 6, 7, 8))]
    return sentencepiece(prefix="never", first=FIRST, pieces=runs, last=plain(*runs), bos="<bos>")


FAMILY = Family(
    name="gemma",
    model_type="gemma",
    tokenizer=tokenizer,
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
    examples=("google/gemma-7b-it",),
)
