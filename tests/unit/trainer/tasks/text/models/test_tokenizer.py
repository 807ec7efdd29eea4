"""A model's tokenizer is loaded as its tokenizer.json describes it, or refused with a sentence."""

import shutil
from pathlib import Path

import pytest

from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.tasks.text.models.tokenizer import load_tokenizer


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_loading_prints_nothing(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_tokenizer(tiny_model, "tiny")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", ["{", "{}", "[]", None])
def test_damaged_tokenizer(model: Path, content: str | None) -> None:
    (model / "tokenizer_config.json").unlink()
    if content is None:
        (model / "tokenizer.json").unlink()
    else:
        (model / "tokenizer.json").write_text(content)
    with pytest.raises(NotFoundError, match="pvc://models/tiny has no tokenizer that can be loaded"):
        load_tokenizer(model, "pvc://models/tiny")
