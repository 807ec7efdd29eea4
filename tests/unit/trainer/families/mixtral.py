"""Mixtral 8x7B: SentencePiece BPE, as Mistral 7B v0.1."""

from tests.unit.trainer.families.building import Family, sentencepiece

FAMILY = Family(
    name="mixtral",
    model_type="mixtral",
    tokenizer=lambda: sentencepiece(prefix="prepend"),
    config={
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": True,
        "pad_token": None,
        "clean_up_tokenization_spaces": False,
    },
    examples=("mistralai/Mixtral-8x7B-Instruct-v0.1",),
)
