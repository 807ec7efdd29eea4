"""Llama 2: SentencePiece BPE; a normalizer puts a space before every piece of text."""

from tests.unit.trainer.families.building import Family, sentencepiece

FAMILY = Family(
    name="llama_2",
    model_type="llama",
    tokenizer=lambda: sentencepiece(prefix="prepend"),
    config={
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
    },
    examples=("meta-llama/Llama-2-7b-chat-hf", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
)
