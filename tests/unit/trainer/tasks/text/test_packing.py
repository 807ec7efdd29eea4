from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_trainer.tasks.text.batches import BatchSettings, TextBatches
from trainyard_trainer.tasks.text.chat import Encoded
from trainyard_trainer.tasks.text.packing import WINDOW, pack
from trainyard_trainer.tasks.text.token_rows import TokenRows

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(lengths, st.integers(40, 100))
def test_every_row_is_in_exactly_one_bin(rows: list[int], capacity: int) -> None:
    bins = list(pack(range(len(rows)), rows, capacity))
    assert sorted(row for members in bins for row in members) == list(range(len(rows)))
    assert all(0 < sum(rows[row] for row in members) <= capacity for members in bins)


@given(lengths, st.integers(40, 100))
def test_number_of_bins_is_within_the_best_fit_bound(rows: list[int], capacity: int) -> None:
    """Best-fit decreasing needs at most 11/9 of the optimum and one more bin."""
    bins = list(pack(range(len(rows)), rows, capacity))
    optimum = -(-sum(rows) // capacity)
    assert len(bins) <= 2 * optimum
    fullness = sorted(sum(rows[row] for row in members) for members in bins)
    assert len(fullness) < 2 or fullness[0] + fullness[1] > capacity


def test_row_goes_to_the_fullest_bin_that_fits() -> None:
    assert list(pack(range(3), [7, 5, 3], 10)) == [[0, 2], [1]]


def test_rows_of_different_windows_are_not_packed_together() -> None:
    bins = list(pack(range(2 * WINDOW), [1] * (2 * WINDOW), WINDOW))
    assert [sorted(members) for members in bins] == [list(range(WINDOW)), list(range(WINDOW, 2 * WINDOW))]


def batches(count: int = 40, **changes: Any) -> TextBatches:
    rows = TokenRows.of(Encoded([n + 1] * (3 + n % 9), [True] * (3 + n % 9)) for n in range(count))
    settings = {"batch_size": 2, "max_length": 16, "packing": True, "pad_token": 0, "seed": 1, **changes}
    return TextBatches(rows, range(count), BatchSettings(**settings))


def content(some: TextBatches, epoch: int) -> list[list[list[int]]]:
    return [some.micro_batch(epoch, index).input_ids.tolist() for index in range(some.num_micro_batches(epoch))]


def test_batches_depend_on_seed_and_epoch() -> None:
    first, second = batches(), batches()
    assert content(first, 1) == content(second, 1)
    assert content(first, 0) != content(first, 1)
    assert content(first, 0) != content(batches(seed=2), 0)
    for epoch in range(3):
        tokens = [token for batch in content(first, epoch) for line in batch for token in line if token]
        assert set(tokens) == set(range(1, 41))
        assert len(tokens) == first.num_tokens


def test_micro_batches_are_addressable() -> None:
    some = batches()
    wanted = content(some, 0)
    again = batches()
    for index in reversed(range(len(wanted))):
        again.micro_batch(5, 0)
        assert again.micro_batch(0, index).input_ids.tolist() == wanted[index]


def test_fingerprint_covers_every_batch_setting() -> None:
    wanted = batches().fingerprint({})
    assert wanted == batches().fingerprint({})
    changes = ({"batch_size": 1}, {"max_length": 17}, {"packing": False}, {"pad_token": 3}, {"seed": 9}, {"count": 39})
    others = {batches(**change).fingerprint({}) for change in changes} | {batches().fingerprint({"overlong": "drop"})}
    assert len(others | {wanted}) == len(changes) + 2


def test_efficiency_is_the_fraction_of_real_tokens() -> None:
    rows = TokenRows.of(Encoded([1] * length, [True] * length) for length in (4, 8, 6, 6))
    settings = BatchSettings(batch_size=2, max_length=12, packing=True, pad_token=0, seed=0)
    assert TextBatches(rows, range(4), settings, shuffle=False).efficiency == 1.0
    padded = BatchSettings(batch_size=2, max_length=12, packing=False, pad_token=0, seed=0)
    assert TextBatches(rows, range(4), padded, shuffle=False).efficiency == 24 / (2 * 8 + 2 * 6)


@pytest.mark.parametrize("kind", ["chats", "short and long", "uniform"])
def test_mixed_lengths_fill_the_sequences(kind: str) -> None:
    random = np.random.default_rng(0)
    drawn = {
        "chats": random.lognormal(5.5, 0.9, 3000),
        "short and long": np.concatenate([random.integers(20, 200, 2500), random.integers(1200, 2000, 500)]),
        "uniform": random.integers(10, 1000, 3000),
    }[kind]
    rows = [int(length) for length in np.clip(drawn, 5, 2048)]
    order = [int(row) for row in random.permutation(len(rows))]
    sequences = list(pack(order, rows, 2048))
    assert sum(rows) / (len(sequences) * 2048) >= 0.97
