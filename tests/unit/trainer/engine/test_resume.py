"""A run interrupted at any place ends with the bits of an uninterrupted one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.trainer.toy import (
    Killed,
    ToyTask,
    count_calls,
    event_lines,
    exported,
    metric_lines,
    run_config,
    train_toy,
)
from trainyard_crds.report import Outcome
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.engine.resume_checks import check_settings, training_settings
from trainyard_trainer.errors import DataError
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm.definition import LLM

BLOCKS = {"evaluation": {"baseline": True}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a run that nothing interrupted."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert train_toy(run_config(directory, **BLOCKS), ToyTask()).exit_code == 0
    return directory


def kill_at(number: int) -> Callable[[int], None]:
    def strike(call: int) -> None:
        if call == number:
            raise Killed

    return strike


def stop_at(number: int, stop: StopFlag) -> Callable[[int], None]:
    def strike(call: int) -> None:
        if call == number:
            stop.request()

    return strike


def assert_same(directory: Path, whole: Path) -> None:
    assert exported(directory) == exported(whole)
    assert metric_lines(directory) == metric_lines(whole)
    assert event_lines(directory) == event_lines(whole)
    assert not list(directory.rglob(".tmp-*"))


@pytest.mark.parametrize("where", ["rename", "write", "fsync", "fsync_tree", "create", "remove_tree"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_kill_in_file_system_call(tmp_path: Path, whole: Path, where: str, number: int) -> None:
    config = run_config(tmp_path / "run", **BLOCKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Files, where, getattr(Files, where))
        count_calls(where, kill_at(number))
        try:
            train_toy(config, ToyTask())
        except Killed:
            assert not (tmp_path / "run/result.json").exists()
    assert train_toy(config, ToyTask()).exit_code == 0
    assert_same(tmp_path / "run", whole)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    strikes=st.lists(
        st.tuples(st.sampled_from(["kill", "stop"]), st.sampled_from(["loss", "evaluate"]), st.integers(1, 30)),
        max_size=4,
    )
)
def test_repeated_kills_and_stops(
    tmp_path_factory: pytest.TempPathFactory, whole: Path, strikes: list[tuple[str, str, int]]
) -> None:
    directory = tmp_path_factory.mktemp("run")
    config = run_config(directory, **BLOCKS)
    for how, where, number in strikes:
        stop = StopFlag()
        strike = kill_at(number) if how == "kill" else stop_at(number, stop)
        try:
            train_toy(config, ToyTask(hooks={where: strike}), stop)
        except Killed:
            continue
        if (directory / "result.json").exists():
            break
    else:
        assert train_toy(config, ToyTask()).exit_code == 0
    assert_same(directory, whole)


def test_stop_in_step_saves_last_whole_step(tmp_path: Path) -> None:
    stop = StopFlag()
    termination = train_toy(run_config(tmp_path), ToyTask(hooks={"loss": stop_at(18, stop)}), stop)
    assert (termination.outcome, termination.exit_code, termination.step) == (Outcome.INTERRUPTED, 75, 4)
    assert [one.name for one in termination.checkpoints] == ["step-3-e1", "step-4-e1"]
    assert termination.message == "Stopped on request. The next start resumes from step-4-e1."


@pytest.mark.parametrize("where", ["load", "evaluate"])
def test_stop_before_first_step_saves_nothing(tmp_path: Path, where: str) -> None:
    stop = StopFlag()
    termination = train_toy(run_config(tmp_path, **BLOCKS), ToyTask(hooks={where: stop_at(1, stop)}), stop)
    assert (termination.exit_code, termination.checkpoints) == (75, [])


def test_second_stop_at_same_step_saves_nothing(tmp_path: Path) -> None:
    config, first, second = run_config(tmp_path), StopFlag(), StopFlag()
    train_toy(config, ToyTask(hooks={"loss": stop_at(18, first)}), first)
    termination = train_toy(config, ToyTask(hooks={"loss": stop_at(1, second)}), second)
    assert [one.name for one in termination.checkpoints] == ["step-3-e1", "step-4-e1"]


def test_evaluation_does_not_change_training(tmp_path: Path, whole: Path) -> None:
    train_toy(run_config(tmp_path, evaluation={"everySteps": 1}), ToyTask())
    last = "checkpoints/step-12-e1/weights/model.safetensors"
    assert (tmp_path / last).read_bytes() == (whole / last).read_bytes()


def test_damaged_checkpoint_is_skipped(tmp_path: Path, whole: Path) -> None:
    stop = StopFlag()
    config = run_config(tmp_path, **BLOCKS)
    train_toy(config, ToyTask(hooks={"loss": stop_at(30, stop)}), stop)
    weights = tmp_path / "checkpoints/step-7-e1/weights/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    train_toy(config, ToyTask())
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert "Resumed from step-6-e1." in [event["message"] for event in log]
    assert not (tmp_path / "checkpoints/step-7-e1").exists()
    assert_same(tmp_path, whole)


def test_resume_needs_same_number_of_processes(tmp_path: Path) -> None:
    alone, together = run_config(tmp_path, gpus=0), run_config(tmp_path, processes=2)
    check_settings(training_settings(together, LLM.settings), training_settings(together, LLM.settings))
    with pytest.raises(DataError, match="processes was 1 when this run began and is 2 now"):
        check_settings(training_settings(alone, LLM.settings), training_settings(together, LLM.settings))
