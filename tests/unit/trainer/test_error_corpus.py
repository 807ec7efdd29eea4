"""Exit code and message of the command line for each dataset, model and run config of the error corpus."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

from error_corpus import DataCase, data
from tests.unit.trainer import tiny
from tests.unit.trainer.sources.hub_server import Hub, serve
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.exitcodes import reason_for
from trainyard_crds.report import Termination
from trainyard_trainer.cli import run_command
from trainyard_trainer.stop import StopFlag

CASES = data()


def _no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def _pickled_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _truncated_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _no_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


def _token_beyond_embedding(model: Path) -> None:
    _change(model / "tokenizer_config.json", pad_token="[PAD]")


def _unknown_split(model: Path) -> None:
    split = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    _change(model / "tokenizer.json", pre_tokenizer=split)


def _change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def _no_chat_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()


def _template_without_tools(model: Path) -> None:
    (model / "chat_template.jinja").write_text(tiny.PLAIN_TEMPLATE)


def _template_without_end(model: Path) -> None:
    (model / "chat_template.jinja").write_text(tiny.PLAIN_TEMPLATE.replace(" + eos_token", ""))


def _template_without_headers(model: Path) -> None:
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ eos_token }}"
    (model / "chat_template.jinja").write_text(template)


def _unknown_architecture(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "tinyllama9"}))


def _non_finite_weight(model: Path) -> None:
    """Set the embedding of the letter Z to NaN, which affects only rows with that letter."""
    path = model / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][tiny.make_tokenizer().convert_tokens_to_ids("Z")] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})


def _row_of_50_megabytes(folder: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x" * 50_000_000}]}
    tiny.write_rows(folder / "big.jsonl", [row])


def _zip_bomb(folder: Path) -> None:
    """Write 100 MiB of blank lines compressed to 100 KB."""
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", (" " * 1_000_000 + "\n") * 100)


WARNINGS = {"ValidationOverlap", "FieldIgnored", "NoEndToken", "OnlyEndLearned"}
LARGE_FILES: dict[str, Callable[[Path], None]] = {"row of 50 MB": _row_of_50_megabytes, "zip bomb": _zip_bomb}
SPOILS: dict[str, Callable[[Path], None]] = {
    "no weights": _no_weights,
    "pickled weights": _pickled_weights,
    "truncated weights": _truncated_weights,
    "no tokenizer": _no_tokenizer,
    "token beyond the embedding": _token_beyond_embedding,
    "split unknown to llama.cpp": _unknown_split,
    "no chat template": _no_chat_template,
    "chat template without tools": _template_without_tools,
    "chat template without end token": _template_without_end,
    "chat template without headers": _template_without_headers,
    "unknown architecture": _unknown_architecture,
    "no number": _non_finite_weight,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "downloads"))
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _seconds: None))
    with serve(Hub({"config.json": b"{}", "model.safetensors": b"weights"})) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture
def run_case(
    tmp_path: Path, tiny_model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> Callable[[DataCase], Termination]:
    """Runs the trainer on a case."""
    return lambda case: train(prepare(case, tmp_path, tiny_model, hub), tmp_path, monkeypatch)


@pytest.fixture
def _same_logging() -> Iterator[None]:
    """Restore logging after each test: a run redirects it to its run log."""
    before = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = before
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("_same_logging")
@pytest.mark.parametrize("name", CASES)
def test_error_has_its_exit_code_and_message(
    name: str,
    run_case: Callable[[DataCase], Termination],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    case = CASES[name]
    termination = run_case(case)
    out, err = capfd.readouterr()
    reported = (warnings(out) if case.exit_code == 0 else err.strip()).replace(str(tmp_path), "/somewhere")
    if request.config.getoption("--update-goldens"):
        case.expected_path.write_text(f"{reported}\n")
    assert reported == case.message
    assert "Traceback" not in err
    assert termination.exit_code == case.exit_code
    assert termination.reason == reason_for(case.exit_code)
    if case.exit_code != 0:
        assert err.strip() == f"{termination.reason}: {termination.message} {termination.advice}".rstrip()
        assert termination.message.endswith(".") or termination.advice.endswith(".")


def prepare(case: DataCase, tmp_path: Path, tiny_model: Path, hub: Hub) -> Path:
    """Write the files of a case and return the path of its run config."""
    model = tiny_model
    for file, content in case.files.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.spoil in LARGE_FILES:
        LARGE_FILES[case.spoil](tmp_path)
    elif case.spoil == "gated hub":
        hub.refuse = (403, "GatedRepo")
    elif case.spoil:
        model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
        SPOILS[case.spoil](model)
    path = tmp_path / "run.json"
    if not path.exists():
        path.write_text(json.dumps(document(case, tmp_path, model)))
    return path


def document(case: DataCase, folder: Path, model: Path) -> dict[str, Any]:
    """Return a valid run config with the changes of a case."""
    working = {
        "runDirectory": f"{folder}/run",
        "task": "llm",
        "method": "full",
        "model": {"source": f"file://{model}"},
        "dataset": {"source": f"file://{folder}/train.jsonl"},
        "optimization": {"precision": "fp32", "maxSteps": 1},
        "llm": {"maxLength": 128},
    }
    changes = json.loads(json.dumps(case.config).replace("{folder}", str(folder)))
    return {name: value for name, value in {**working, **changes}.items() if value is not None}


def train(run_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Termination:
    """Run `train` in this process and return its termination."""
    log = tmp_path / "termination-log"
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(log))
    monkeypatch.setattr(sys, "argv", ["trainyard-trainer", "train", "--config", str(run_config)])
    exit_code = run_command(StopFlag())
    termination = Termination.model_validate_json(log.read_bytes())
    assert termination.exit_code == exit_code
    return termination


def warnings(out: str) -> str:
    """Return the data events in the log of a run that continues."""
    events = [json.loads(line) for line in out.splitlines()]
    return "\n".join(f"{event['type']}: {event['message']}" for event in events if event.get("type") in WARNINGS)


def test_every_expected_message_belongs_to_a_case() -> None:
    folder = next(iter(CASES.values())).path.parent
    assert {path.stem for path in folder.glob("*.txt")} == CASES.keys()
