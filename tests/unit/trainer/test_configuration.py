import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.toy import run_config
from trainyard_trainer.configuration import load_config
from trainyard_trainer.errors import ConfigurationError


def load(tmp_path: Path, **changes: Any) -> None:
    document = {**run_config(tmp_path).to_json(), **changes}
    (tmp_path / "run.json").write_text(json.dumps(document))
    load_config(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"optimization": {"learningRate": 2}},
            "optimization.learningRate is 2 but must be less than or equal to 1.",
            id="out of range",
        ),
        pytest.param(
            {"optimization": {"learningRte": 1e-4}},
            "optimization.learningRte is not a field of the run config: write learningRate instead.",
            id="misspelled field",
        ),
        pytest.param(
            {"quantization": {"bits": 4}, "method": "qlora"},
            "quantization.bits is not a field of the run config: remove it (known: doubleQuant, type).",
            id="unknown",
        ),
        pytest.param({"dataset": {}}, "dataset.source is missing: add it.", id="missing"),
        pytest.param(
            {"optimization": {"scheduler": "cubic"}},
            "optimization.scheduler is \"cubic\" but must be 'cosine', 'linear' or 'constant'.",
            id="not one of the choices",
        ),
        pytest.param(
            {"adapter": {"rank": 8}},
            "adapter has no effect with method: full; remove it, or use method: lora or qlora.",
            id="block without effect",
        ),
        pytest.param({"gpus": "many"}, 'gpus is "many" but must be a valid integer', id="not a number"),
    ],
)
def test_error_names_field_value_and_remedy(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, **changes)
    assert message in caught.value.message


def test_error_lists_several_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, gpus=-1, **{f"x{number}": 1 for number in range(9)})
    assert caught.value.message.count(";") == 5
    assert caught.value.message.endswith("and 5 more.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n}', "is not valid JSON: line 2, column 1"),
        (b"\xff", "it is not UTF-8 text"),
        (b"[]", "the document is [] but"),
    ],
)
def test_invalid_run_config_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path / "run.json")
    assert message in caught.value.message


def test_scientific_notation_as_text_is_accepted(tmp_path: Path) -> None:
    load(tmp_path, optimization={"learningRate": "1e-4"})


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_config(tmp_path).to_json()), encoding="utf-8-sig")
    assert load_config(path) == run_config(tmp_path)
