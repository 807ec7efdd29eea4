"""Micro-batches of language-model rows, packed or padded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainyard_trainer.tasks.text.packing import pack
from trainyard_trainer.tasks.text.token_rows import Origins, TokenRows


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """The input of one forward pass, B sequences of T tokens, and the N positions whose next token carries loss."""

    input_ids: Tensor
    """(B, T), int64."""
    position_ids: Tensor
    """(B, T), int64: restarts at 0 with every row of a packed sequence, which isolates the rows."""
    attention_mask: Tensor | None
    """(B, T), int64, 1 on real tokens; None where sequences are packed: a mask would join the rows."""
    loss_positions: Tensor
    """(N,), int64: b * T + t."""
    labels: Tensor
    """(N,), int64: the token that follows each position, always of the same row."""
    num_tokens: int
    boundaries: Tensor | None = None
    """(R + 1,), int32: the start of each of the R packed rows and the end of the last one, b * T + t; padding is a row
    too. None where rows are not packed."""
    longest: int = 0
    """Tokens of the longest packed row."""

    @property
    def loss_weight(self) -> float:
        """N."""
        return len(self.labels)

    @property
    def num_items(self) -> int:
        """Real (not padded) tokens."""
        return self.num_tokens

    def to(self, device: torch.device) -> TextBatch:
        """Return the batch on a device."""
        return TextBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            attention_mask=None if self.attention_mask is None else self.attention_mask.to(device),
            boundaries=None if self.boundaries is None else self.boundaries.to(device),
            longest=self.longest,
            loss_positions=self.loss_positions.to(device),
            labels=self.labels.to(device),
            num_tokens=self.num_tokens,
        )


def collate(rows: TokenRows, sequences: Sequence[Sequence[int]], *, packed: bool, pad_token: int) -> TextBatch:
    """Build a batch; each sequence is a list of row numbers, of one row where nothing is packed.

    Shorter sequences are padded at the end: under a mask, or, packed, by one more row without loss.
    """
    width = max(sum(int(rows.starts[row + 1] - rows.starts[row]) for row in sequence) for sequence in sequences)
    shape = (len(sequences), width)
    tokens = np.full(shape, pad_token, np.int64)
    positions = np.zeros(shape, np.int64)
    labels = np.full(shape, -1, np.int64)
    mask = np.zeros(shape, np.int64)
    for index, sequence in enumerate(sequences):
        used = _fill(rows, sequence, tokens[index], positions[index], labels[index])
        mask[index, :used] = 1
        positions[index, used:] = np.arange(width - used)
    carrying = np.flatnonzero(labels >= 0)
    boundaries = np.append(np.flatnonzero(positions == 0), positions.size).astype(np.int32)
    return TextBatch(
        input_ids=torch.from_numpy(tokens),
        position_ids=torch.from_numpy(positions),
        attention_mask=None if packed else torch.from_numpy(mask),
        boundaries=torch.from_numpy(boundaries) if packed else None,
        longest=int(np.diff(boundaries).max()),
        loss_positions=torch.from_numpy(carrying),
        labels=torch.from_numpy(labels.reshape(-1)[carrying]),
        num_tokens=int(mask.sum()),
    )


def _fill(
    rows: TokenRows,
    sequence: Sequence[int],
    tokens: NDArray[np.int64],
    positions: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> int:
    """Write rows one after another into one line of a batch; returns the tokens used."""
    used = 0
    for row in sequence:
        start, stop = int(rows.starts[row]), int(rows.starts[row + 1])
        end = used + stop - start
        tokens[used:end] = rows.tokens[start:stop]
        positions[used:end] = np.arange(stop - start)
        following = rows.tokens[start + 1 : stop]
        labels[used : end - 1] = np.where(rows.loss[start + 1 : stop], following, -1)
        used = end
    return used


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What decides how rows become batches."""

    batch_size: int
    max_length: int
    packing: bool
    pad_token: int
    seed: int


class TextBatches:
    """Some rows of a `TokenRows` as micro-batches; with `shuffle`, in another order each epoch."""

    def __init__(
        self,
        rows: TokenRows,
        members: Sequence[int],
        settings: BatchSettings,
        *,
        shuffle: bool = True,
        origins: Origins | None = None,
    ) -> None:
        self._rows = rows
        self._lengths = rows.lengths
        self._members = np.asarray(members, np.int64)
        self._settings = settings
        self._shuffle = shuffle
        self._origins = origins
        self._plan = lru_cache(maxsize=2)(self._make_plan)

    def __len__(self) -> int:
        return len(self._members)

    def num_micro_batches(self, epoch: int = 0) -> int:
        """Micro-batches of one pass."""
        return -(-len(self._plan(epoch)) // self._settings.batch_size)

    def micro_batch(self, epoch: int, index: int) -> TextBatch:
        """Return micro-batch `index` of the pass `epoch`, both from 0.

        Raises:
            IndexError: The pass has fewer.
        """
        sequences = self._sequences(epoch, index)
        return collate(self._rows, sequences, packed=self._settings.packing, pad_token=self._settings.pad_token)

    def rows_of(self, epoch: int, index: int) -> list[int]:
        """Return the rows of a micro-batch, as numbers into the `TokenRows`.

        Raises:
            IndexError: The pass has fewer.
        """
        return [row for sequence in self._sequences(epoch, index) for row in sequence]

    def origins(self, epoch: int, index: int) -> list[tuple[str, int]]:
        """Return file and row number (from 1) of each row of a micro-batch; empty if unknown."""
        known = self._origins
        return [known[row] for row in self.rows_of(epoch, index)] if known is not None else []

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self._lengths[row] for row in self._members)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens of all rows that carry loss."""
        starts, loss = self._rows.starts, self._rows.loss
        return sum(int(loss[starts[row] + 1 : starts[row + 1]].sum()) for row in self._members)

    @property
    def longest_row(self) -> int:
        """Tokens of the longest row."""
        return max(self._lengths[int(row)] for row in self._members)

    @property
    def highest_token(self) -> int:
        """The largest token number in any row."""
        return int(self._rows.tokens.max())

    @property
    def efficiency(self) -> float:
        """Share of real tokens among the computed ones, in the first pass."""
        plan = self._plan(0)
        if self._settings.packing:
            return self.num_tokens / (len(plan) * self._settings.max_length)
        size = self._settings.batch_size
        longest = [[self._lengths[row] for (row,) in plan[at : at + size]] for at in range(0, len(plan), size)]
        return self.num_tokens / sum(len(batch) * max(batch) for batch in longest)

    def fingerprint(self, settings: Mapping[str, object]) -> str:
        """Return the SHA-256 (hex) over the rows, the settings of the batches, and `settings`."""
        document = {"version": 1, "rows": self._rows.digest, **vars(self._settings), **settings}
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
        digest.update(self._members.tobytes())
        return digest.hexdigest()

    def _sequences(self, epoch: int, index: int) -> list[list[int]]:
        size = self._settings.batch_size
        sequences = self._plan(epoch)[index * size : (index + 1) * size]
        if not sequences or index < 0:
            raise IndexError(index)
        return sequences

    def _make_plan(self, epoch: int) -> list[list[int]]:
        """Return the sequences of one pass, each a list of row numbers."""
        random = np.random.Generator(np.random.PCG64([self._settings.seed, epoch]))
        members = random.permutation(self._members) if self._shuffle else self._members
        order = [int(row) for row in members]
        if not self._settings.packing:
            return [[row] for row in order]
        bins = list(pack(order, self._lengths, self._settings.max_length))
        if not self._shuffle:
            return bins
        return [bins[int(index)] for index in random.permutation(len(bins))]  # not the longest rows first
