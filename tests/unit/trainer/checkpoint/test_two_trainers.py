"""Two trainers on one run directory, one of them paused or killed at each file operation."""

from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.campaign.instants import paused
from tests.unit.trainer.checkpoint.support import names, open_at, save
from tests.unit.trainer.toy import Killed
from trainyard_trainer.checkpoint.manifest import read_verified
from trainyard_trainer.checkpoint.store import CheckpointStore
from trainyard_trainer.errors import SupersededError


def missing(directory: Path, store: CheckpointStore) -> list[str]:
    """Return the checkpoints of a store that are missing or corrupt."""
    return [one for one in names(store) if read_verified(directory / "checkpoints" / one) is None]


def stale_save(directory: Path, instant: int) -> bool:
    """Pause a trainer that keeps one checkpoint in its second save while a successor takes over.

    Returns:
        Whether the instant was reached.
    """
    stale, successors = open_at(directory, keep=1), []
    save(stale, 3)
    with paused(instant, lambda: successors.append(open_at(directory, keep=1))) as happened:
        try:
            save(stale, 6)
        except SupersededError:
            assert happened
    if happened:
        [successor] = successors
        assert successor.newest is not None
        assert missing(directory, successor) == []
        with pytest.raises(SupersededError):
            save(stale, 9)
        assert missing(directory, successor) == []
        save(successor, 9)
        assert names(open_at(directory)) == ["step-9-e2"]
    return bool(happened)


def test_trainer_paused_in_a_save_removes_no_checkpoint_of_its_successor(tmp_path: Path) -> None:
    instants = next(number for number in count() if not stale_save(tmp_path / str(number), number))
    assert instants > 40


def dying_successor(directory: Path, instant: int) -> bool:
    """Kill a successor during its takeover, just after its predecessor tried to save.

    Returns:
        Whether the instant was reached.
    """
    predecessor, saved = open_at(directory, keep=1), [3]
    save(predecessor, 3)

    def save_and_die() -> None:
        try:
            save(predecessor, 6)
            saved.append(6)
        except SupersededError:
            pass
        raise Killed

    with paused(instant, save_and_die) as happened:
        try:
            open_at(directory)
        except Killed:
            assert happened
    third = open_at(directory)
    assert third.newest is not None
    assert third.newest.manifest.step >= saved[-1]
    assert missing(directory, third) == []
    return bool(happened)


def test_successor_killed_during_takeover_loses_no_checkpoint(tmp_path: Path) -> None:
    instants = next(number for number in count() if not dying_successor(tmp_path / str(number), number))
    assert instants > 30


def two_successors(directory: Path, instant: int) -> bool:
    """Run two takeovers at the same time.

    Returns:
        Whether the instant was reached.
    """
    save(open_at(directory), 3)
    newer: list[CheckpointStore] = []
    older: list[CheckpointStore] = []
    with paused(instant, lambda: newer.append(open_at(directory))) as happened, suppress(SupersededError):
        older.append(open_at(directory))
    for store in older:
        if newer and store.owner_epoch < newer[0].owner_epoch:
            with pytest.raises(SupersededError):
                save(store, 6)
        else:
            save(store, 6)
    assert names(open_at(directory))[0] == "step-3-e1"
    assert all(missing(directory, store) == [] for store in newer)
    return bool(happened)


def test_one_of_two_concurrent_takeovers_succeeds(tmp_path: Path) -> None:
    instants = next(number for number in count() if not two_successors(tmp_path / str(number), number))
    assert instants > 30
