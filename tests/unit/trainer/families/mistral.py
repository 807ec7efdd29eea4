"""Mistral 7B v0.1: SentencePiece BPE, as Llama 2."""

from tests.unit.trainer.families.building import Family, sentencepiece

FAMILY = Family(
    name="mistral",
    model_type="mistral",
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
    examples=("mistralai/Mistral-7B-Instruct-v0.1", "mistralai/Mistral-7B-Instruct-v0.2"),
)
