"""Kubernetes quantities."""

from __future__ import annotations

import pytest

from trainyard_operator.quantity import whole_units


@pytest.mark.parametrize(("text", "units"), [("500m", 1), ("2", 2), ("1.5Gi", 1610612736), ("3k", 3000)])
def test_quantity_is_rounded_up_to_whole_units(text: str, units: int) -> None:
    assert whole_units(text) == units
