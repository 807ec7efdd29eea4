"""Gemma 3: Gemma 2's tokenizer with tokens for images."""

from dataclasses import replace

from tests.unit.trainer.families import gemma_2

FAMILY = replace(
    gemma_2.FAMILY,
    name="gemma_3",
    model_type="gemma3_text",
    tokenizer=lambda: gemma_2.tokenizer((*gemma_2.FIRST, "<start_of_image>", "<end_of_image>")),
    examples=("google/gemma-3-4b-it", "google/gemma-3-1b-it"),
)
