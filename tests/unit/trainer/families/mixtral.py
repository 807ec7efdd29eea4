"""Mixtral 8x7B: the tokenizer of Mistral 7B v0.1."""

from dataclasses import replace

from tests.unit.trainer.families import mistral

FAMILY = replace(
    mistral.FAMILY, name="mixtral", model_type="mixtral", examples=("mistralai/Mixtral-8x7B-Instruct-v0.1",)
)
