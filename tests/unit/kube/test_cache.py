"""The newest version of each object wins, whatever the order of lists, events and answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kube.objects import NAMES, owner
from trainyard_kube.cache import Cache

Change = tuple[str, str | None, str | None]


def new_cache() -> tuple[Cache[str], list[Change]]:
    changes: list[Change] = []
    return Cache(NAMES.trim, lambda *change: changes.append(change)), changes


def test_older_version_does_not_replace_newer_one() -> None:
    cache, changes = new_cache()
    assert cache.put(owner(9, name="new"))
    assert not cache.put(owner(9, name="same"))
    assert not cache.put(owner(8, name="old"))
    assert (cache.get("u1"), changes) == ("new", [("u1", None, "new")])
    assert (cache.has(owner(9)), cache.has(owner(10))) == (True, False)


def test_object_whose_trimmed_value_is_none_is_known_but_not_kept() -> None:
    cache, changes = new_cache()
    assert cache.put(owner(1, state=""))
    assert (len(cache), cache.has(owner(1)), changes) == (0, True, [])
    cache.put(owner(2))
    cache.put(owner(3, state=""))
    assert (len(cache), changes) == (0, [("u1", None, "one"), ("u1", "one", None)])


def test_deletion_reports_the_last_state_and_stays() -> None:
    cache, changes = new_cache()
    cache.put(owner(1))
    cache.delete(owner(2, name="last"))
    assert changes[1:] == [("u1", "last", None)]
    assert not cache.put(owner(1))
    assert cache.replace([cache.entry(owner(1))], 1) == []
    assert len(cache) == 0


def test_deletion_of_an_unknown_object_is_reported() -> None:
    cache, changes = new_cache()
    cache.delete(owner(2))
    assert changes == [("u1", "one", None)]


def test_list_removes_what_it_lacks_unless_that_is_newer() -> None:
    cache, _ = new_cache()
    for version, name in ((1, "missing"), (20, "newer"), (3, "same"), (4, "changed")):
        cache.put(owner(version, uid=name, name=name))
    listed = [cache.entry(owner(version, uid=name, name=name)) for version, name in ((3, "same"), (7, "changed"))]
    assert sorted(cache.replace(listed, 10)) == ["changed", "missing"]
    assert sorted(cache.values()) == ["changed", "newer", "same"]


def test_clear_forgets_everything_silently() -> None:
    cache, changes = new_cache()
    cache.put(owner(5))
    cache.clear()
    assert (len(cache), len(changes), cache.put(owner(5))) == (0, 1, True)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20)), max_size=20))
def test_order_of_events_does_not_matter(events: list[tuple[int, int]]) -> None:
    cache, _ = new_cache()
    newest: dict[str, int] = {}
    for number, version in events:
        uid = str(number)
        cache.put(owner(version, uid=uid, name=str(version)))
        newest[uid] = max(newest.get(uid, 0), version)
    assert {uid: cache.get(uid) for uid in newest} == {uid: str(version) for uid, version in newest.items()}


@pytest.mark.parametrize("deleted", [1, 9])
def test_tombstones_are_bounded(monkeypatch: pytest.MonkeyPatch, deleted: int) -> None:
    monkeypatch.setattr("trainyard_kube.cache._TOMBSTONES", 3)
    cache, _ = new_cache()
    for number in range(deleted):
        cache.delete(owner(2, uid=str(number)))
    assert cache.put(owner(1, uid="0")) is (deleted > 3)


@pytest.mark.parametrize(("version", "for_good", "stored"), [(4, False, False), (5, False, True), (6, True, False)])
def test_object_that_only_left_the_selection_is_stored_again(version: int, for_good: bool, stored: bool) -> None:
    cache, _ = new_cache()
    cache.put(owner(4))
    cache.delete(owner(5), for_good=for_good)
    assert cache.put(owner(version)) is stored
