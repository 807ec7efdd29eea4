"""Links and paths in the docs lead to files and headings that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "mistakes.md"),
    *sorted((ROOT / "charts").rglob("*.md")),
]
BASES = (
    *(
        "",
        "crds",
        "kube",
        "operator",
        "gateway",
        "trainer_image",
        "crds/trainyard_crds",
        "kube/trainyard_kube",
        "operator/trainyard_operator",
        "gateway/trainyard_gateway",
    ),
    *("operator/trainyard_operator/trainingjob", "trainer_image/trainyard_trainer", "tests/unit/trainer/tasks"),
)
"""Directories that paths in the docs are relative to."""
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|md|ya?ml|tpl)")
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_broken(page: Path, path: str, anchor: str) -> bool:
    target = page.parent / path if path else page
    return not target.exists() or (bool(anchor) and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_are_not_broken(page: Path) -> None:
    links = LINK.findall(page.read_text())

    assert [link for link in links if is_broken(page, *link)] == []


def is_missing(path: str) -> bool:
    return not any((ROOT / base / path).exists() for base in BASES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_in_code_spans_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    names = (name for span in re.findall(r"`([^`\n]+)`", prose) for name in span.split())

    assert [name for name in names if FILE.fullmatch(name) and is_missing(name)] == []
