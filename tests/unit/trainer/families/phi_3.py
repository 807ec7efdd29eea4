"""Phi-3: Llama 2's tokenizer with control tokens, most of which swallow the white space after them."""

from tests.unit.trainer.families.building import Family, sentencepiece, special

FAMILY = Family(
    name="phi_3",
    model_type="phi3",
    tokenizer=lambda: sentencepiece(
        prefix="prepend",
        last=[*special("<|endoftext|>"), *special("<|assistant|>", "<|system|>", "<|end|>", "<|user|>", rstrip=True)],
    ),
    config={
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "legacy": False,
        "clean_up_tokenization_spaces": False,
    },
    examples=("microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3.5-mini-instruct"),
)
