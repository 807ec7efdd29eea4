import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainer import tiny
from trainyard_trainer.cli import run_command
from trainyard_trainer.errors import ConfigurationError, NotFoundError, StopRequested
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm import compare_command
from trainyard_trainer.tasks.llm.comparison import Comparison, Sample, exchange_questions
from trainyard_trainer.tasks.text.formats.example import Example, Message
from trainyard_trainer.tasks.text.models.adapter import add_adapter, save_adapter
from trainyard_trainer.tasks.text.models.full import save_model


def run(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    parser = argparse.ArgumentParser()
    compare_command.add_arguments(parser)
    assert compare_command.run(parser.parse_args([str(word) for word in [*words, "--json"]])) == 0
    text, _, document = capsys.readouterr().out.rpartition("\n{")
    return text, json.loads("{" + document)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_rows(tmp_path_factory.mktemp("data") / "heldout.jsonl", tiny.questions(12))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An adapter that changes something: trained weights are never zero, initial ones half are."""
    from transformers import AutoModelForCausalLM

    from trainyard_crds.trainingjob_training import Adapter

    directory = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = add_adapter(base, Adapter(rank=4), seed=0, base="tiny", revision=None)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapter(model, directory)
    return directory


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapter_is_compared_with_base_model(
    method: str, tiny_model: Path, adapter: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", tiny_model, "--adapter", adapter, "--data", data, "--method", method, "--samples", 2)
    text, document = run(*options, capsys=capsys)
    loss = document["evalLoss"]
    assert len({loss["before"], loss["after"], loss["afterShuffled"]}) == 3
    assert document["changePercent"] == pytest.approx(100 * (loss["after"] / loss["before"] - 1))
    assert document["rows"] == 12
    assert len(document["samples"]) == 2
    for sample in document["samples"]:
        assert sample["question"] in data.read_text()
        assert sample["reference"] in data.read_text()
        assert sample["before"] != sample["after"]
    assert all(len(line) <= compare_command.WIDTH for line in text.splitlines())
    assert f"{loss['after']:.4f}" in text


def test_whole_model_is_compared(
    tmp_path: Path, tiny_model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = run("--model", tiny_model, "--adapter", tiny_model, "--data", data, "--method", "full", capsys=capsys)[1]
    assert same["evalLoss"]["before"] == same["evalLoss"]["after"]
    save_model(tiny.make_model("qwen3"), tiny.make_tokenizer(), tmp_path)
    other = run("--model", tiny_model, "--adapter", tmp_path, "--data", data, capsys=capsys)[1]
    assert other["evalLoss"]["before"] == same["evalLoss"]["before"] != other["evalLoss"]["after"]


def test_text_rows_have_loss_but_no_questions(
    tmp_path: Path, tiny_model: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.write_rows(tmp_path / "rows.jsonl", [{"text": f"the moon {n}"} for n in range(3)])
    document = run("--model", tiny_model, "--adapter", adapter, "--data", data, capsys=capsys)[1]
    assert document["evalLoss"]["afterShuffled"] is None
    assert document["samples"] == []


def test_mistakes_are_reported_in_a_sentence(tmp_path: Path, tiny_model: Path, adapter: Path, data: Path) -> None:
    parser = argparse.ArgumentParser()
    compare_command.add_arguments(parser)

    def arguments(model: Path, trained: Path, rows: Path = data) -> argparse.Namespace:
        return parser.parse_args(["--model", str(model), "--adapter", str(trained), "--data", str(rows)])

    with pytest.raises(NotFoundError, match="does not exist"):
        compare_command.run(arguments(tmp_path / "none", adapter))
    with pytest.raises(NotFoundError, match="is not a model"):
        compare_command.run(arguments(tiny_model, tmp_path))
    with pytest.raises(NotFoundError, match="There is no file"):
        compare_command.run(arguments(tiny_model, adapter, tmp_path / "none.jsonl"))
    narrow = tiny.make_config()
    narrow.hidden_size = 64
    other = tmp_path / "other"
    save_model(type(tiny.make_model())(narrow), tiny.make_tokenizer(), other)
    with pytest.raises(ConfigurationError, match="does not fit the model"):
        compare_command.run(arguments(other, adapter))

    def stop() -> None:
        raise StopRequested("Stopped on request.")

    with pytest.raises(StopRequested):
        compare_command.run(arguments(tiny_model, adapter), stop)


def conversation(number: int) -> Example:
    return Example(
        messages=(
            Message("system", "s"),
            Message("user", f"q{number}"),
            Message("assistant", f"a{number}"),
            Message("user", f"r{number}"),
            Message("assistant", f"b{number}"),
        )
    )


@pytest.mark.parametrize("count", [2, 3, 10])
def test_exchanged_questions_differ_in_every_row(count: int) -> None:
    exchanged = exchange_questions([conversation(number) for number in range(count)], seed=3)
    partners = [int(example.messages[1].content[1:]) for example in exchanged]
    assert sorted(partners) == list(range(count))
    assert all(partner != number for number, partner in enumerate(partners))
    assert [example.messages[3].content for example in exchanged] == [f"r{partner}" for partner in partners]
    assert [example.messages[4].content for example in exchanged] == [f"b{number}" for number in range(count)]


def test_report_is_narrow_and_has_no_control_characters() -> None:
    sample = Sample(question="why? " * 200, reference="so " * 300, before="\x1b[2J\n\x00 " + "x" * 90, after="")
    comparison = Comparison(rows=1, tokens=9, before=4.0, after=1.0, after_shuffled=2.0, samples=[sample])
    text = compare_command.render(comparison)
    assert all(len(line) <= compare_command.WIDTH for line in text.splitlines())
    assert "\x1b" not in text
    assert "-75.0 %" in text
    assert "-50.0 %" in text
    assert "(nothing)" in text


def test_the_command_line(
    tiny_model: Path, adapter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_words(rows: Path) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRAINYARD_TERMINATION_LOG", str(tmp_path / "termination"))
            patch.setattr("sys.argv", [*words, str(rows)])
            return run_command(StopFlag())

    words = ["trainyard-trainer", "compare", "--model", str(tiny_model), "--adapter", str(adapter), "--data"]
    assert run_words(data) == 0
    assert "Held-out loss: 12 rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "termination").read_text())["outcome"] == "Finished"
    assert run_words(tmp_path / "none.jsonl") == 66
    assert capsys.readouterr().err.startswith("NotFound: There is no file")
