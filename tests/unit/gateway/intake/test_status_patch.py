from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_gateway.intake.status_patch import status_patch

REPORTED = {"progress": {"step": 1, "updatedAt": "b"}, "metrics": {"loss": 1.0}, "gpus": [], "summary": {"eta": "1m"}}


@pytest.mark.parametrize(
    ("current", "change", "patch"),
    [
        (REPORTED, {}, {}),
        (REPORTED | {"gpus": [{"name": "x"}]}, {}, {"gpus": []}),
        ({}, {}, {"progress": REPORTED["progress"], "metrics": REPORTED["metrics"], "summary": REPORTED["summary"]}),
        (REPORTED | {"progress": {"step": 1, "updatedAt": "a"}}, {}, {}),
        (REPORTED | {"progress": {"step": 0, "updatedAt": "a"}}, {}, {"progress": {"step": 1, "updatedAt": "b"}}),
        (REPORTED | {"progress": {"step": 1, "epoch": 2, "updatedAt": "b"}}, {}, {"progress": {"epoch": None}}),
        (REPORTED | {"metrics": {"loss": 1.0, "old": 2.0}}, {}, {"metrics": {"old": None}}),
        (REPORTED | {"summary": {"eta": "1m", "gpus": "4"}}, {}, {}),
        (
            REPORTED | {"summary": {"eta": "1m", "loss": "4"}},
            {"summary": {"eta": None, "loss": "4"}},
            {"summary": {"eta": None}},
        ),
        (REPORTED | {"checkpoints": [{"name": "a"}]}, {}, {}),
    ],
)
def test_patch_contains_differences_only(
    current: dict[str, Any], change: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert status_patch(current, REPORTED | change) == patch


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


PARTS = st.fixed_dictionaries(
    {
        "progress": st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3),
        "metrics": st.dictionaries(st.sampled_from("abc"), st.floats(0, 2), max_size=3),
        "gpus": st.lists(st.integers(0, 1), max_size=2),
    }
)


@given(current=PARTS, wanted=PARTS)
def test_applying_the_patch_gives_the_reported_fields(current: dict[str, Any], wanted: dict[str, Any]) -> None:
    patch = status_patch(current, wanted)
    assert merge(current, patch) == wanted
    assert not status_patch(merge(current, patch), wanted)
