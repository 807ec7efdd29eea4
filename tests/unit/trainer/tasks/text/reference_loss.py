"""Random rows and their loss without packing, padding or chunks."""

import numpy as np
import torch
from torch.nn import functional

from trainyard_trainer.tasks.text.chat import Encoded
from trainyard_trainer.tasks.text.token_rows import TokenRows


def random_rows(count: int, *, seed: int = 0) -> TokenRows:
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(random.integers(3, 12))
        marks = [bool(mark) for mark in random.random(length) < 0.6]
        marks[-1] = True
        rows.append(Encoded([int(token) for token in random.integers(6, 300, length)], marks))
    return TokenRows.of(rows)


def plain_loss(model: torch.nn.Module, rows: TokenRows, row: int) -> torch.Tensor:
    """Sum of the loss of one row: no packing, no padding, every logit."""
    start, stop = rows.starts[row], rows.starts[row + 1]
    tokens = torch.tensor(rows.tokens[start:stop], dtype=torch.int64)
    logits = model(input_ids=tokens[None], use_cache=False).logits[0]
    labels = torch.where(torch.tensor(rows.loss[start:stop]), tokens, -100)
    return functional.cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=-100)
