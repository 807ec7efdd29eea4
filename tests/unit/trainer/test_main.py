"""The real entry point, in a separate process where a test sends signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.timeouts import TIMEOUT
from tests.unit.trainer import toy_command
from tests.unit.trainer.cli_support import run_command_line
from tests.unit.trainer.fork_server import Program, start_program
from tests.unit.trainer.toy import ToyTask, exported, metric_lines, run_config, train_toy
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.checkpoint.store import open_store
from trainyard_trainer.objective import Objective

ROOT = Path(__file__).parents[3]


def write_config(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_config(tmp_path / "run").to_json()))
    return path


def environment(tmp_path: Path, fault: str = "") -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer_image", ".")),
        "OMP_NUM_THREADS": "1",
        "TOY_FAULT": fault,
        TERMINATION_LOG_ENV: str(tmp_path / "termination-log"),
    }


def train_in_process(tmp_path: Path, program: Program, fault: str) -> int | None:
    """Run one attempt in a separate process and return its exit code, negative for a signal."""
    command, output = ("train", "--config", str(write_config(tmp_path))), tmp_path / "output"
    environ = environment(tmp_path, fault)
    process = start_program(program, *command, environ=environ, directory=tmp_path, output=output)
    process.join(TIMEOUT)
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted")
    assert train_toy(run_config(directory), ToyTask()).exit_code == 0
    return directory


@pytest.mark.parametrize(
    ("program", "fault", "exit_code", "resumed_from"),
    [
        pytest.param(
            toy_command.run, "kill:rename:6", -signal.SIGKILL, "step-3-e1", id="killed inside a checkpoint write"
        ),
        pytest.param(toy_command.run_fresh, "term:loss:29", 75, "step-7-e1", id="SIGTERM in the middle of a step"),
    ],
)
def test_killed_process_is_resumed_by_the_next(
    tmp_path: Path, uninterrupted: Path, *, program: Program, fault: str, exit_code: int, resumed_from: str
) -> None:
    assert train_in_process(tmp_path, program, fault) == exit_code
    if exit_code == 75:
        termination = Termination.model_validate_json((tmp_path / "termination-log").read_bytes())
        assert (termination.outcome, termination.exit_code, termination.step) == (Outcome.INTERRUPTED, 75, 7)
    run = tmp_path / "run"
    store = open_store(
        run, files=Files(), keep=2, run_uri=None, pod_uid=None, now="t", objective=Objective("evalLoss", "minimize")
    )
    assert store.newest is not None
    assert store.newest.name == resumed_from
    assert train_toy(run_config(run), ToyTask()).exit_code == 0
    assert exported(run) == exported(uninterrupted)
    assert metric_lines(run) == metric_lines(uninterrupted)


def test_sigterm_before_heavy_imports_exits_75(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from trainyard_trainer import main, stop
heavy = {{"torch", "pydantic", "numpy"}} & set(sys.modules)
assert not heavy, heavy
install = stop.StopFlag.install
def installed(flag):
    install(flag)
    os.kill(os.getpid(), signal.SIGTERM)
stop.StopFlag.install = installed
sys.argv = ["trainer", "train", "--config", {str(write_config(tmp_path))!r}]
code = main.main()
assert "torch" not in sys.modules
sys.exit(code)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment(tmp_path), cwd=tmp_path, timeout=TIMEOUT, check=False)
    assert done.returncode == 75
    assert not (tmp_path / "run").exists()


def test_finished_run_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train_toy(run_config(tmp_path / "run"), ToyTask())
    before = (tmp_path / "run/log.jsonl").read_bytes()
    (tmp_path / "run/cache").mkdir()  # left by a trainer that was killed after it had written the result
    again = run_command_line(monkeypatch, tmp_path, "train", "--config", str(write_config(tmp_path)))
    assert again == first
    assert (tmp_path / "run/log.jsonl").read_bytes() == before
    assert not (tmp_path / "run/cache").exists()
    assert "holds a finished run" in capsys.readouterr().out


def test_result_of_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train_toy(run_config(tmp_path / "run"), ToyTask())
    capsys.readouterr()
    result = run_command_line(monkeypatch, tmp_path, "result", "--run-directory", str(tmp_path / "run"))
    assert result == trained
    assert Termination.model_validate_json(capsys.readouterr().out) == trained


def test_result_of_an_unfinished_run_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_command_line(monkeypatch, tmp_path, "result", "--run-directory", str(tmp_path / "run"))
    assert (result.exit_code, result.reason) == (66, "NotFound")
    assert "holds no result of a finished run" in result.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The following arguments are required: COMMAND."),
        (["train"], "The following arguments are required: --config."),
        (["train", "--config", "x", "--gpus", "2"], "Unrecognized arguments: --gpus 2."),
        (["fly"], "Argument COMMAND: invalid choice: 'fly'"),
        (["train", "--config", "/missing/run.json"], "cannot be read: No such file or directory."),
    ],
)
def test_invalid_arguments_exit_64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    termination = run_command_line(monkeypatch, tmp_path, *arguments)
    assert (termination.exit_code, termination.reason) == (64, "BadConfiguration")
    assert message in termination.message


def test_unexpected_error_exits_70(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_path: Path) -> None:
        raise KeyError("boom")

    monkeypatch.setattr("trainyard_trainer.cli.load_config", fail)
    termination = run_command_line(monkeypatch, tmp_path, "train", "--config", "x")
    assert (termination.exit_code, termination.message) == (70, "The trainer failed unexpectedly: KeyError: 'boom'")
    assert "Traceback" in capsys.readouterr().err


def test_restart_of_a_finished_run_removes_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config(tmp_path)
    assert train_toy(run_config(tmp_path / "run"), ToyTask()).exit_code == 0
    (tmp_path / "run/checkpoints/.tmp-e1/removed-step-3-e1").mkdir(parents=True)
    assert run_command_line(monkeypatch, tmp_path, "train", "--config", str(path)).exit_code == 0
    assert not list((tmp_path / "run").rglob(".tmp-*"))
