"""Smallest merge patches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_kube.merge_patch import merge_patch


@pytest.mark.parametrize(
    ("current", "desired", "patch"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2, "b": {"c": 1}}, {"a": 2, "b": {"c": 1}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {"b": None}}),
        ({}, {"a": None, "b": {"c": None, "d": {"e": None, "f": 1}}}, {"b": {"d": {"f": 1}}}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_patch_holds_the_difference(current: dict[str, Any], desired: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(current, desired) == patch


OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | inner, max_size=3),
    max_leaves=8,
)


@given(OBJECTS)
def test_object_needs_no_patch_to_itself(obj: dict[str, Any]) -> None:
    assert merge_patch(obj, obj) == {}
