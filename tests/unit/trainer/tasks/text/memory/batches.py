"""Batches as the trainer makes them."""

from trainyard_trainer.tasks.text.batches import TextBatch, collate
from trainyard_trainer.tasks.text.chat import Encoded
from trainyard_trainer.tasks.text.token_rows import TokenRows


def full_batch(sequences: int, length: int) -> TextBatch:
    """Two rows packed into each sequence, a loss on every token that has one before it."""
    half = length // 2
    rows = [Encoded([(7 * row + token) % 300 for token in range(half)], [True] * half) for row in range(2 * sequences)]
    pairs = [[2 * number, 2 * number + 1] for number in range(sequences)]
    return collate(TokenRows.of(rows), pairs, packed=True, pad_token=0)
