"""Which evaluation is the best: the task's default objective, another metric, another goal."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.cli_support import run_command_line
from tests.unit.trainer.definitions import replace_llm
from tests.unit.trainer.toy import ToyTask, run_config
from trainyard_crds.report import Termination
from trainyard_trainer import bootstrap
from trainyard_trainer.engine.state import TrainingState
from trainyard_trainer.engine.task import Loaded, RunContext
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.objective import Objective
from trainyard_trainer.stop import StopFlag

LOSSES = [0.5, 0.2, 0.4, 0.3]
ACCURACIES = [0.1, 0.6, 0.9, 0.7]
HELD_OUT = {"validation": {"fraction": 0.1}}


class RatedTask(ToyTask):
    """Reports an accuracy whose best value is at another step than the lowest loss."""

    def __init__(self) -> None:
        super().__init__(evaluations=LOSSES)
        self._accuracies = iter(ACCURACIES)

    def evaluate(self, loaded: Loaded, context: RunContext) -> dict[str, float]:
        return {**super().evaluate(loaded, context), "accuracy": next(self._accuracies)}


def train(run: Path, monkeypatch: pytest.MonkeyPatch, **evaluation: Any) -> Termination:
    replace_llm(RatedTask, monkeypatch, metrics={"evalLoss": "minimize", "accuracy": "maximize"})
    config = run_config(run, evaluation=evaluation, dataset=HELD_OUT, checkpoints={"keep": 1})
    return bootstrap.train(config, stop=StopFlag(), environ={})


@pytest.mark.parametrize(
    ("evaluation", "step"),
    [
        ({}, 6),
        ({"metric": "evalLoss"}, 6),
        ({"metric": "accuracy"}, 9),
        ({"metric": "accuracy", "goal": "minimize"}, 3),
        ({"metric": "evalLoss", "goal": "maximize"}, 3),
    ],
)
def test_objective_decides_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: dict[str, Any], step: int
) -> None:
    termination = train(tmp_path, monkeypatch, **evaluation)
    best = [one for one in termination.checkpoints if one.best]
    index = json.loads((tmp_path / "checkpoints/index.json").read_text())
    assert [one.step for one in best] == [step]
    assert index["best"] == best[0].name
    weights = tmp_path / f"checkpoints/{best[0].name}/weights/model.safetensors"
    assert (tmp_path / "exports/model/model.safetensors").read_bytes() == weights.read_bytes()


def test_early_stopping_follows_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    termination = train(tmp_path, monkeypatch, metric="accuracy", earlyStopping={"patience": 1})
    wanted = "Trained 12 steps of 12: "
    assert not termination.message.startswith(wanted)
    shorter = train(tmp_path / "b", monkeypatch, metric="accuracy", goal="minimize", earlyStopping={"patience": 1})
    assert shorter.step == 6
    assert "accuracy has not fallen below 0.1 in 1 evaluations (evaluation.earlyStopping)" in shorter.message
    rising = train(tmp_path / "c", monkeypatch, metric="evalLoss", goal="maximize", earlyStopping={"patience": 2})
    assert rising.step == 9
    assert "evalLoss has not risen above 0.5 in 2 evaluations" in rising.message


def test_unknown_metric_is_refused_before_run_directory_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        train(tmp_path / "run", monkeypatch, metric="f1")
    assert caught.value.message == "evaluation.metric is f1, which task llm does not report."
    assert caught.value.advice == "Use one of: evalLoss, accuracy."
    assert not (tmp_path / "run").exists()


def test_command_exits_64_for_unknown_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "run.json"
    config = run_config(tmp_path / "run", evaluation={"metric": "accuracy"}, dataset=HELD_OUT, processes=2)
    document.write_text(json.dumps(config.to_json()))
    termination = run_command_line(monkeypatch, tmp_path, "train", "--config", str(document))
    assert (termination.exit_code, termination.message, termination.advice) == (
        64,
        "evaluation.metric is accuracy, which task llm does not report.",
        "Use one of: evalLoss.",
    )


def test_best_value_of_another_objective_is_forgotten() -> None:
    state = TrainingState(best_value=0.3, evaluations_since_best=4, objective=Objective("evalLoss", "minimize"))
    state.judge_by(Objective("evalLoss", "minimize"))
    assert (state.best_value, state.evaluations_since_best) == (0.3, 4)
    state.judge_by(Objective("accuracy", "maximize"))
    assert (state.best_value, state.evaluations_since_best) == (None, 0)


def test_best_value_of_an_older_run_is_kept() -> None:
    state = TrainingState(best_value=0.3, evaluations_since_best=4)
    state.judge_by(Objective("evalLoss", "minimize"))
    assert (state.best_value, state.evaluations_since_best) == (0.3, 4)
    state.judge_by(Objective("evalLoss", "maximize"))
    assert (state.best_value, state.evaluations_since_best) == (None, 0)
