"""MiniCPM: SentencePiece BPE, as Llama 2."""

from tests.unit.trainer.families.building import Family, sentencepiece, special

FAMILY = Family(
    name="minicpm",
    model_type="llama",
    tokenizer=lambda: sentencepiece(prefix="prepend", last=special("<|im_start|>", "<|im_end|>")),
    config={
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "unk_token": "<unk>",
        "legacy": True,
        "clean_up_tokenization_spaces": False,
    },
    examples=("openbmb/MiniCPM3-4B",),
)
