from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_crds.printer_text import eta_text, loss_text, progress_summary, progress_text, step_text
from trainyard_crds.trainingjob_status import Summary


@pytest.mark.parametrize(
    ("percent", "text"), [(0, "0%"), (37.9, "37%"), (99.99, "99%"), (100, "100%"), (-1, "0%"), (140, "100%")]
)
def test_progress_is_rounded_down(percent: float, text: str) -> None:
    assert progress_text(percent) == text


def test_step_shows_a_known_total() -> None:
    assert step_text(120, 320) == "120/320"
    assert step_text(120, None) == "120"


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (0.012345, "0.0123"),
        (2.34567, "2.346"),
        (0.5, "0.5"),
        (0, "0"),
        (1.2345e-6, "1.23e-06"),
        (-0.25, "-0.25"),
        (12345678.0, "1.235e+07"),
    ],
)
def test_loss_is_rounded(loss: float, text: str) -> None:
    assert loss_text(loss) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m0s"), (750, "12m30s"), (3600, "1h0m"), (4320, "1h12m"),
        (86_399, "23h59m"), (86_400, "1d0h"), (183_600, "2d3h"), (10**12, ">9999d"),
    ],
)  # fmt: skip
def test_eta_has_two_units(seconds: float, text: str) -> None:
    assert eta_text(seconds) == text


def test_unknown_values_are_none() -> None:
    assert progress_summary({}, {}) == {"progress": None, "step": None, "loss": None, "eta": None}
    known = progress_summary(
        {"percent": 37.5, "step": 120, "totalSteps": 320, "remainingSeconds": 4320}, {"loss": 0.01}
    )
    assert known == {"progress": "37%", "step": "120/320", "loss": "0.01", "eta": "1h12m"}


@given(
    percent=st.floats(0, 100),
    step=st.integers(0, 10**8),
    total=st.none() | st.integers(0, 10**8),
    remaining=st.floats(0, 1e15),
    loss=st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_text_fits_the_schema(
    percent: float, step: int, total: int | None, remaining: float, loss: float
) -> None:
    progress = {"percent": percent, "step": step, "totalSteps": total, "remainingSeconds": remaining}
    Summary.model_validate(progress_summary(progress, {"loss": loss}))
