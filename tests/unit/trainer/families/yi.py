"""Yi: SentencePiece BPE without a space before the text."""

from tests.unit.trainer.families.building import Family, sentencepiece

FAMILY = Family(
    name="yi",
    model_type="llama",
    tokenizer=lambda: sentencepiece(
        prefix="never", first=("<unk>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"), bos=None
    ),
    config={
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<unk>",
        "unk_token": "<unk>",
        "legacy": True,
        "clean_up_tokenization_spaces": False,
    },
    examples=("01-ai/Yi-1.5-9B-Chat",),
)
