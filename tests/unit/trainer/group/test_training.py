"""Language models trained by several processes: equal to one process with the same batch, and resumable bit for bit."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.unit.trainer import tiny, toy
from tests.unit.trainer.group import work
from tests.unit.trainer.group.processes import run_group
from tests.unit.trainer.group.runs import ABSOLUTE, RELATIVE, config, weights
from tests.unit.trainer.toy import event_lines, metric_lines
from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.runconfig import RunConfig

pytestmark = pytest.mark.slow

METHODS = ["lora", "qlora", "full"]


def exported(run: RunConfig) -> dict[str, bytes]:
    (directory,) = Path(run.run_directory, "exports").iterdir()
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def manifests(run: RunConfig) -> list[str]:
    return sorted(path.parent.name for path in Path(run.run_directory).glob("checkpoints/*/manifest.json"))


@pytest.fixture(scope="module")
def tied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with one matrix for embedding and head, as in small models."""
    directory = tmp_path_factory.mktemp("tied")
    made = tiny.make_config("qwen3")
    made.tie_word_embeddings = True
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(made, attn_implementation="sdpa").save_pretrained(directory)
    tiny.make_tokenizer().save_pretrained(directory)
    return directory


def test_sharded_model_with_tied_weights_is_saved_and_resumed(tmp_path: Path, tied_model: Path) -> None:
    alone, together = (config(tmp_path, tied_model, f"of-{count}", "full", count) for count in (1, 2))
    assert run_group(1, work.train, alone) == [ExitCode.FINISHED]
    assert run_group(2, work.train, together, ("stop", 0, 10)) == [ExitCode.INTERRUPTED] * 2
    assert run_group(2, work.train, together) == [ExitCode.FINISHED] * 2
    expected, found = weights(alone), weights(together)
    assert found.keys() == expected.keys()
    assert "lm_head.weight" not in found
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=RELATIVE, atol=ABSOLUTE)


@pytest.mark.parametrize("method", METHODS)
def test_several_processes_train_like_one_with_the_same_batch(tmp_path: Path, tiny_model: Path, method: str) -> None:
    alone = config(tmp_path, tiny_model, "alone", method, 1)
    assert run_group(1, work.train, alone) == [ExitCode.FINISHED]
    for processes in (2, 4):
        together = config(tmp_path, tiny_model, f"of-{processes}", method, processes)
        assert run_group(processes, work.train, together) == [ExitCode.FINISHED] * processes
        expected, found = weights(alone), weights(together)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=RELATIVE, atol=ABSOLUTE)
        lines, reference = metric_lines(Path(together.run_directory)), metric_lines(Path(alone.run_directory))
        assert [line.keys() for line in lines] == [line.keys() for line in reference]
        for line, one in zip(lines, reference, strict=True):
            assert line == pytest.approx(one, rel=1e-3)
        owners = [path.name for path in Path(together.run_directory, "owner").iterdir()]
        assert (owners, manifests(together)) == (["1.json"], ["step-4-e1", "step-6-e1"])


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_killed_groups_end_with_the_same_bits(tmp_path: Path, tiny_model: Path, method: str) -> None:
    options = {"dropout": 0.1, "precision": "bf16" if method == "full" else "fp32"}
    uninterrupted = config(tmp_path, tiny_model, "uninterrupted", method, 2, **options)
    assert run_group(2, work.train, uninterrupted) == [ExitCode.FINISHED] * 2
    broken = config(tmp_path, tiny_model, "broken", method, 2, **options)
    # In the third step and twice in the sixth; in the fifth, one process has fewer passes than the other.
    assert run_group(2, work.train, broken, ("stop", 1, 9)) == [ExitCode.INTERRUPTED] * 2
    assert run_group(2, work.train, broken, ("kill", 1, 12)) == [ExitCode.PEER_LOST, -signal.SIGKILL]
    assert run_group(2, work.train, broken, ("stop", -1, 3)) == [ExitCode.INTERRUPTED] * 2
    assert run_group(2, work.train, broken) == [ExitCode.FINISHED] * 2
    assert exported(broken) == exported(uninterrupted)
    run = Path(broken.run_directory)
    assert metric_lines(run) == metric_lines(Path(uninterrupted.run_directory))
    assert event_lines(run) == event_lines(Path(uninterrupted.run_directory))
    assert sorted(path.name for path in (run / "owner").iterdir()) == ["1.json", "2.json", "3.json", "4.json"]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("processes", [2, 4])
def test_two_pods_end_with_the_bits_of_one_pod_with_as_many_processes(
    tmp_path: Path, tiny_model: Path, method: str, processes: int
) -> None:
    one, two = (
        config(tmp_path, tiny_model, f"in-{nodes}", method, processes, nodes=nodes, dropout=0.1) for nodes in (1, 2)
    )
    assert run_group(processes, work.train, one) == [ExitCode.FINISHED] * processes
    assert run_group(processes, work.train, two, nodes=2) == [ExitCode.FINISHED] * processes
    assert exported(two) == exported(one)
    assert metric_lines(Path(two.run_directory)) == metric_lines(Path(one.run_directory))


def test_all_processes_stop_early_together(tmp_path: Path) -> None:
    dataset = {"validation": {"fraction": 0.5}}
    blocks = {"dataset": dataset, "evaluation": {"earlyStopping": {"patience": 1}}, "optimization": {"maxSteps": 20}}
    run = toy.run_config(tmp_path / "run", processes=3, **blocks)
    assert run_group(3, work.train_toy, run, [2.0, 1.0, 3.0, 0.5]) == [ExitCode.FINISHED] * 3
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert "evaluation.earlyStopping" in result["message"]
    assert result["step"] == 9


@pytest.mark.parametrize("method", ["lora", "full"])
def test_non_finite_loss_names_the_rows_of_the_process_that_had_it(
    tmp_path: Path, tiny_model: Path, method: str
) -> None:
    checkpoints = {"everySteps": 2, "everyMinutes": 1}
    run = config(tmp_path, tiny_model, "run", method, 2, checkpoints=checkpoints)
    assert run_group(2, work.train, run, ("nan", 1, 6)) == [ExitCode.BAD_DATA] * 2
    last = [json.loads(line) for line in Path(run.run_directory, "log.jsonl").read_text().splitlines()][-1]
    found = re.search(
        r"The loss became infinite or not a number in step 2, in the batch of .*, row (\d+)\.", last["message"]
    )
    assert found, last["message"]
    # The sixth pass of rank 1 is micro-batch 8 + 2 * 1 + 1 of the epoch, of one row.
    assert int(found[1]) == row_of(run, 11)


def row_of(run: RunConfig, index: int) -> int:
    """Return the row number (from 1) of a micro-batch of the first epoch, as reported by a single process."""
    alone = run.model_copy(
        update={
            "run_directory": f"{run.run_directory}-alone",
            "processes": 1,
            "optimization": run.optimization.model_copy(update={"gradient_accumulation": 8}),
        }
    )
    assert run_group(1, work.train, alone, ("nan", 0, index + 1)) == [ExitCode.BAD_DATA]
    text = Path(alone.run_directory, "log.jsonl").read_text().splitlines()[-1]
    found = re.search(r"row (\d+)\.", text)
    assert found, text
    return int(found[1])
