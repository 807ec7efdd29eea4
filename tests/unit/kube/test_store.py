"""Owners by key, children by owner."""

from __future__ import annotations

import pytest

from tests.unit.kube.objects import CHILDREN, KEY, OWNERS, SPECS, child, owner
from trainyard_kube.compressed_object import CompressedObject
from trainyard_kube.paths import Object
from trainyard_kube.resource import Key
from trainyard_kube.store import Store


@pytest.fixture
def store() -> Store:
    return Store(SPECS)


def names(store: Store, **labels: str) -> dict[str, bool]:
    """The children of the owner, and whether each is deleted."""
    return {each["metadata"]["name"]: each.get("gone", False) for each in store.children(CHILDREN, "u1", labels)}


def replace(store: Store, kind: str, listed: list[Object], version: int) -> list[Key | None]:
    cache = store.cache(kind)
    return [store.key_of(kind, each) for each in cache.replace([cache.entry(obj) for obj in listed], version)]


def test_objects_are_trimmed(store: Store) -> None:
    store.put(OWNERS, owner(1))
    assert store.get(KEY) == {key: value for key, value in owner(1).items() if key != "secret"}


def test_children_are_found_by_owner_in_its_namespace_only(store: Store) -> None:
    store.put(OWNERS, owner(1))
    assert store.put(CHILDREN, child(2)) == KEY
    assert store.put(CHILDREN, child(3, "forged", namespace="other")) is None
    assert store.put(CHILDREN, child(4, "foreign", owner_uid="u9")) is None
    assert names(store) == {"c1": False}


def test_children_are_selected_by_labels(store: Store) -> None:
    store.put(OWNERS, owner(1))
    store.put(CHILDREN, child(2, "a", role="train"))
    store.put(CHILDREN, child(3, "b", role="check"))
    assert names(store, role="check") == {"b": False}


def test_children_are_found_once_their_owner_is_known(store: Store) -> None:
    assert store.put(CHILDREN, child(2)) is None
    assert names(store) == {}
    store.put(OWNERS, owner(1))
    assert names(store) == {"c1": False}
    assert (store.has_children(CHILDREN, "u1"), store.has_children(CHILDREN, "u2")) == (True, False)


def test_deleted_child_is_kept_until_it_is_forgotten(store: Store) -> None:
    store.put(OWNERS, owner(1))
    store.put(CHILDREN, child(2))
    assert store.remove(CHILDREN, child(3)) == KEY
    assert (names(store), store.has_children(CHILDREN, "u1")) == ({"c1": True}, False)
    store.forget_deleted(CHILDREN, "u1", store.children(CHILDREN, "u1", {}))
    assert names(store) == {}


def test_deleted_child_is_kept_even_if_it_was_never_seen_before(store: Store) -> None:
    store.put(OWNERS, owner(1))
    store.remove(CHILDREN, child(3))
    assert names(store) == {"c1": True}


def test_deleted_children_are_dropped_with_their_owner(store: Store) -> None:
    store.put(OWNERS, owner(1))
    store.remove(CHILDREN, child(3))
    store.remove(OWNERS, owner(4))
    assert store.put(OWNERS, owner(5, "u2")) == KEY
    assert store._deleted == {}


def test_name_that_is_used_again_belongs_to_the_new_object(store: Store) -> None:
    store.put(OWNERS, owner(1, "old"))
    store.put(OWNERS, owner(5, "new"))
    store.remove(OWNERS, owner(6, "old"))
    found = store.get(KEY)
    assert found is not None
    assert found["metadata"]["uid"] == "new"


def test_list_removes_missing_children_and_returns_their_owners(store: Store) -> None:
    store.put(OWNERS, owner(1))
    store.put(CHILDREN, child(2, "missing"))
    store.put(CHILDREN, child(20, "newer"))
    store.put(CHILDREN, child(3, "same"))
    assert replace(store, CHILDREN, [child(3, "same"), child(7, "new")], 10) == [KEY, KEY]
    assert names(store) == {"newer": False, "same": False, "new": False, "missing": True}


def test_unchanged_list_changes_nothing(store: Store) -> None:
    store.put(OWNERS, owner(1))
    assert replace(store, OWNERS, [owner(1)], 5) == []


def test_owners_of_children_are_those_that_are_not_final(store: Store) -> None:
    store.put(OWNERS, owner(1))
    store.put(CHILDREN, child(2, zone="a"))
    assert store.owners_of(CHILDREN, lambda obj: obj["metadata"]["labels"]["zone"] == "a") == {KEY}
    assert store.owners_of(CHILDREN, lambda obj: obj["metadata"]["labels"]["zone"] == "b") == set()
    store.put(OWNERS, owner(3, state="Done"))
    assert store.owners_of(CHILDREN, lambda _: True) == set()


def test_namespace_has_owners_until_the_last_one_is_gone(store: Store) -> None:
    store.put(OWNERS, owner(1, "old"))
    store.put(OWNERS, owner(2, "new"))
    store.remove(OWNERS, owner(3, "old"))
    assert store.has_namespace("team")
    store.remove(OWNERS, owner(4, "new"))
    assert (store.has_namespace("team"), store.namespaces()) == (False, set())


def test_owners_are_counted_by_state(store: Store) -> None:
    store.put(OWNERS, owner(1))
    store.put(OWNERS, owner(2, "u2", "two", "Done"))
    store.put(OWNERS, owner(3, "u3", "three"))
    assert store.count_states(OWNERS) == {"Running": 2, "Done": 1}
    assert len(store.all_keys()) == 3


@pytest.mark.parametrize("finished_first", [True, False])
def test_final_owner_and_its_children_are_compressed_and_read_the_same(store: Store, finished_first: bool) -> None:
    plain = Store(SPECS)
    changes = [(OWNERS, owner(5, state="Done")), (CHILDREN, child(6))]
    for kind, obj in changes if finished_first else reversed(changes):
        store.put(kind, obj)
    plain.put(OWNERS, owner(5))
    plain.put(CHILDREN, child(6))
    assert store.children(CHILDREN, "u1", {}) == plain.children(CHILDREN, "u1", {})
    found, other = store.get(KEY), plain.get(KEY)
    assert other is not None
    assert found == other | {"state": "Done"}
    assert all(isinstance(each, CompressedObject) for kind in (OWNERS, CHILDREN) for each in store.cache(kind).values())
    assert replace(store, OWNERS, [], 7) == [KEY]
    assert store.get(KEY) is None
