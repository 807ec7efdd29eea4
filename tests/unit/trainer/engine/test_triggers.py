from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.toy import run_config
from trainyard_trainer.engine.grace import GracePeriodMonitor
from trainyard_trainer.engine.triggers import Triggers


def triggers(*, has_evaluation: bool = True, **blocks: Any) -> Triggers:
    return Triggers(run_config(Path("/run"), **blocks), total_steps=10, has_evaluation=has_evaluation)


def test_evaluation_follows_periodic_checkpoints_by_default() -> None:
    assert [step for step in range(1, 11) if triggers().evaluates(step)] == [3, 6, 9, 10]
    assert [step for step in range(1, 11) if triggers(evaluation={"everySteps": 4}).evaluates(step)] == [4, 8, 10]
    assert not any(triggers(has_evaluation=False).evaluates(step) for step in range(1, 11))


def test_last_step_is_logged() -> None:
    assert [step for step in range(1, 11) if triggers(optimization={"loggingSteps": 4}).logs(step)] == [4, 8, 10]


@pytest.mark.parametrize(("seconds", "is_due"), [(29.0, False), (30.0, True)])
def test_old_checkpoint_triggers_a_save_between_periodic_ones(seconds: float, is_due: bool) -> None:
    assert triggers(checkpoints={"everyMinutes": 0.5}).saves(4, seconds_since_save=seconds) is is_due


def test_no_warning_when_step_and_two_saves_fit_grace_period() -> None:
    meter = GracePeriodMonitor(30)
    meter.step_took(10)
    meter.save_took(10)
    meter.save_took(1)
    assert meter.warning() is None


def test_short_grace_period_warning_names_a_value() -> None:
    meter = GracePeriodMonitor(30)
    meter.step_took(10)
    meter.save_took(10.1)
    warning = meter.warning()
    assert warning is not None
    assert "gracePeriodSeconds is 30" in warning
    assert "at least 61" in warning
