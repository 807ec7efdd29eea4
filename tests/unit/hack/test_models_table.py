"""docs/models.md is true, shown by a sample of its rows, and is read back as it was written."""

import subprocess
import sys
from pathlib import Path

import pytest

from models_table import page
from models_table.architectures import NAMES
from models_table.cells import COLUMNS, Cell, Row

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "models.md"
SAMPLE = ("llama", "qwen3_moe", "gemma2", "gpt_oss", "falcon", "bert")


def test_every_architecture_has_a_row_and_no_cell_fails() -> None:
    rows = page.read(PAGE.read_text())
    assert tuple(rows) == NAMES
    assert [name for name, row in rows.items() if row.has_failed] == []


def test_a_written_page_is_read_back() -> None:
    cells = {column: Cell("yes") for column in COLUMNS} | {
        "gguf": Cell("no", "Use another."),
        "qlora": Cell("partly", "Some."),
    }
    row = Row("llama", cells)
    assert page.read(page.render([row])) == {"llama": row}


@pytest.mark.slow
def test_a_sample_of_the_table_is_true(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "hack" / "models_table"),
        "--out",
        str(tmp_path / "page.md"),
        "--only",
        *SAMPLE,
    ]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    found, documented = page.read((tmp_path / "page.md").read_text()), page.read(PAGE.read_text())
    assert found == {name: documented[name] for name in SAMPLE}
