import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_trainer.report.progress import Pace, percent_done


@pytest.mark.parametrize(("step", "total", "percent"), [(0, 3, 0), (1, 3, 33.3), (2999, 3000, 99.9), (3, 3, 100)])
def test_percent(step: int, total: int, percent: float) -> None:
    assert percent_done(step, total) == percent


@given(st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_only_the_last_step_is_100_percent(pair: tuple[int, int]) -> None:
    step, total = pair
    assert 0 <= percent_done(step, total) <= 100
    assert (percent_done(step, total) == 100) is (step == total)


def test_no_estimate_before_the_first_step() -> None:
    pace = Pace(time=5, step=7, items=70)
    assert (pace.steps_per_second, pace.items_per_second, pace.remaining_seconds(3)) == (None, None, None)


def test_resumed_run_measures_only_its_own_steps() -> None:
    pace = Pace(time=100, step=50, items=5000)
    pace.add(time=102, step=51, items=5100)
    assert (pace.steps_per_second, pace.items_per_second, pace.remaining_seconds(9)) == (0.5, 50, 18)


def test_steps_older_than_a_minute_are_dropped() -> None:
    pace = Pace(time=0, step=0, items=0)
    for step in range(1, 201):
        pace.add(time=1000 + step, step=step, items=step)
    assert pace.steps_per_second == pytest.approx(1.0)


def test_the_last_ten_steps_are_kept_even_if_slow() -> None:
    pace = Pace(time=0, step=0, items=0)
    for step in range(1, 6):
        pace.add(time=100 * step, step=step, items=step)
    assert pace.remaining_seconds(2) == 200
