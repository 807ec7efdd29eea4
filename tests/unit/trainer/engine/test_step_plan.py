import pytest

from tests.unit.trainer.toy import ToyData
from trainyard_trainer.engine.step_plan import Cursor, StepPlan


def plan(num_batches: int, *, epochs: float | None = None, max_steps: int | None = None) -> StepPlan:
    return StepPlan(ToyData(num_batches), accumulation=4, epochs=epochs, max_steps=max_steps)


@pytest.mark.parametrize(
    ("num_batches", "epochs", "max_steps", "steps"),
    [
        pytest.param(10, None, None, 9, id="three passes when nothing is said, the last step of each is smaller"),
        pytest.param(8, 2, None, 4, id="a whole number of steps per pass"),
        pytest.param(8, 1.5, None, 3, id="half a pass"),
        pytest.param(8, 0.01, None, 1, id="at least one step"),
        pytest.param(8, 1.26, None, 3, id="a part of a step counts as one"),
        pytest.param(8, 2, 7, 7, id="maxSteps wins over epochs"),
        pytest.param(1, 1, None, 1, id="one micro-batch"),
    ],
)
def test_total_steps(num_batches: int, epochs: float | None, max_steps: int | None, steps: int) -> None:
    assert plan(num_batches, epochs=epochs, max_steps=max_steps).total_steps == steps


def test_steps_use_each_micro_batch_once_and_do_not_span_epochs() -> None:
    steps, cursor, seen = plan(10, epochs=2), Cursor(), []
    for _ in range(steps.total_steps):
        cursors, cursor = steps.step(cursor)
        assert len({one.epoch for one in cursors}) == 1
        seen += cursors
    assert seen == [Cursor(epoch, index) for epoch in range(2) for index in range(10)]
    assert cursor == Cursor(2, 0)


def test_epochs_done() -> None:
    steps = plan(8, epochs=2)
    assert steps.epochs_done(Cursor(1, 4)) == 1.5
    assert steps.epochs_done(Cursor(2, 0)) == 2.0
