"""Another recompute mode after a restart, on a smaller GPU, does not change a bit of the weights."""

from pathlib import Path

import pytest

from tests.unit.trainer.tasks.llm.runs import config, exported, train
from trainyard_crds.report import Outcome
from trainyard_crds.runconfig import RunConfig


def computing_again(run: RunConfig, mode: str) -> RunConfig:
    return run.model_copy(update={"optimization": run.optimization.model_copy(update={"recompute": mode})})


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_weights_do_not_depend_on_recompute_mode_of_each_start(tmp_path: Path, tiny_model: Path, method: str) -> None:
    whole = config(tmp_path, tiny_model, "whole", method)
    assert train(whole).outcome is Outcome.FINISHED
    resumed = config(tmp_path, tiny_model, "resumed", method)
    assert train(computing_again(resumed, "full"), interrupted_at=7).outcome is Outcome.INTERRUPTED
    assert train(computing_again(resumed, "selective"), interrupted_at=5).outcome is Outcome.INTERRUPTED
    assert train(computing_again(resumed, "offload")).outcome is Outcome.FINISHED
    assert exported(resumed) == exported(whole)
