"""InternLM 2: SentencePiece BPE, as Llama 2, with chat tokens after the vocabulary."""

from tests.unit.trainer.families.building import Family, sentencepiece, special

FAMILY = Family(
    name="internlm_2",
    model_type="internlm2",
    tokenizer=lambda: sentencepiece(
        prefix="prepend", last=special("<|im_start|>", "<|im_end|>", "<|action_start|>", "<|action_end|>")
    ),
    config={
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "clean_up_tokenization_spaces": False,
    },
    examples=("internlm/internlm2_5-7b-chat",),
)
