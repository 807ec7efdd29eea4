"""GPT-2: byte-level BPE; its published configuration names no special token, the class does."""

from tests.unit.trainer.families.building import Family, byte_level, special

FAMILY = Family(
    name="gpt_2",
    model_type="gpt2",
    tokenizer=lambda: byte_level(last=special("<|endoftext|>")),
    config={"model_max_length": 1024},
    examples=("openai-community/gpt2", "distilbert/distilgpt2"),
)
