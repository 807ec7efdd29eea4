"""The tables of the export formats and optimizers agree: API, trainer and documentation."""

import re
from pathlib import Path

from trainyard_crds import exports
from trainyard_crds.optimizers import OPTIMIZERS
from trainyard_trainer.tasks.llm.export_formats import FORMATS

DOCS = Path(__file__).parents[5] / "docs"


def documented(page: str) -> set[str]:
    return set(re.findall(r"^\| `([a-z0-9_]+)`", (DOCS / page).read_text(), re.MULTILINE))


def test_every_export_format_of_the_api_can_be_written_and_is_documented() -> None:
    assert set(FORMATS) == set(exports.FORMATS["llm"])
    assert set(FORMATS) <= documented("exports.md")


def test_every_optimizer_is_documented() -> None:
    assert set(OPTIMIZERS) <= documented("trainer.md")
