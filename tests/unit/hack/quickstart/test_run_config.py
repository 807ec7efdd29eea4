"""The quickstart trains the demo's TrainingJob with local files."""

import json
from pathlib import Path

from demo.manifest import load
from demo.show import EXAMPLE
from quickstart.run_config import prepare, run_config
from trainyard_crds.runconfig import RunConfig

INPUTS = Path("/cache/tiny-model")


def test_run_config_has_the_settings_of_the_example() -> None:
    job = load(EXAMPLE)

    config = run_config(job, INPUTS, Path("/state/run"))

    assert config["optimization"] == job["spec"]["optimization"]
    assert config["adapter"] == job["spec"]["adapter"]
    assert config["runDirectory"] == "/state/run"


def test_run_config_names_local_files() -> None:
    config = RunConfig.model_validate(run_config(load(EXAMPLE), INPUTS, Path("/state/run")))

    assert config.model.source == "file:///cache/tiny-model/model"
    assert config.dataset.source == "file:///cache/tiny-model/train.jsonl"
    assert config.dataset.validation is not None
    assert config.dataset.validation.source == "file:///cache/tiny-model/heldout.jsonl"
    assert (config.method, config.gpus) == ("qlora", 0)


def test_same_settings_use_the_same_run_directory(tmp_path: Path) -> None:
    first = prepare(load(EXAMPLE), INPUTS, tmp_path)
    again = prepare(load(EXAMPLE), INPUTS, tmp_path)

    assert first == again
    assert json.loads(first.read_text())["runDirectory"] == str(first.parent / "run")


def test_other_settings_use_another_run_directory(tmp_path: Path) -> None:
    job = load(EXAMPLE)
    first = prepare(job, INPUTS, tmp_path)
    job["spec"]["optimization"]["maxSteps"] = 10

    assert prepare(job, INPUTS, tmp_path).parent != first.parent
    assert prepare(load(EXAMPLE), Path("/cache/other"), tmp_path).parent != first.parent
