"""docs/serving.md explains every reason that a ModelDeployment can have for not being served."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("operator/trainyard_operator/modeldeployment", "serving/trainyard_serving")
REASON = re.compile(r'\b(?:Fault|Failure|Unfit|FetchFailure)\(\s*(?:reason=)?"([A-Z]\w+)"')
FETCHED = ("Configuration", "Data", "NotFound", "NotPermitted", "Source", "Storage")
"""Errors of sources, whose names are made into reasons."""


def test_every_reason_has_a_row() -> None:
    sources = [path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    reasons = {reason for text in sources for reason in REASON.findall(text)} | {f"Fetch{name}" for name in FETCHED}
    section = (ROOT / "docs/serving.md").read_text().partition("\n## When it fails\n")[2].partition("\n## ")[0]
    rows = set(re.findall(r"`([A-Z]\w+)`", "\n".join(re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE))))

    assert len(reasons) > len(FETCHED)
    assert reasons - rows == set()
