from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_trainer.engine.schedule import learning_rate_factor

Scheduler = Literal["cosine", "linear", "constant"]


def factors(scheduler: Scheduler, total_steps: int, warmup_ratio: float) -> list[float]:
    return [
        learning_rate_factor(step, total_steps=total_steps, warmup_ratio=warmup_ratio, scheduler=scheduler)
        for step in range(1, total_steps + 1)
    ]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_one_warm_up_step_then_decay(scheduler: Scheduler, expected: list[float]) -> None:
    assert factors(scheduler, 5, 0.2) == pytest.approx(expected, abs=1e-6)


def test_first_step_has_peak_without_warm_up() -> None:
    assert factors("linear", 4, 0.0) == [1.0, 0.75, 0.5, 0.25]


@given(
    scheduler=st.sampled_from(["cosine", "linear", "constant"]),
    total_steps=st.integers(1, 60),
    warmup_ratio=st.floats(0, 1),
)
def test_rate_is_never_zero_rises_then_falls(scheduler: Scheduler, total_steps: int, warmup_ratio: float) -> None:
    values = factors(scheduler, total_steps, warmup_ratio)
    peak = values.index(max(values))
    assert all(0 < value <= 1 for value in values)
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
