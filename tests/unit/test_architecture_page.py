"""docs/architecture.md lists the files of common changes, completely."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/architecture.md"
SOURCES = (
    *("crds/trainyard_crds", "kube/trainyard_kube", "operator/trainyard_operator", "gateway/trainyard_gateway"),
    *("serving/trainyard_serving", "trainer_image/trainyard_trainer", "charts/trainyard/templates"),
)
GENERATED = re.compile(r"charts/trainyard/templates/crd-")
LIMITS = {"A kind": 6, "An optimizer": 5, "An export format": 4}
"""Most files of a change, tests excluded."""
EXPECTED = {
    *("An exit code with its advice", "A row format", "An export format", "An optimizer", "A metric", "A kind"),
    *("A task", "A policy of the TrainingJob", "A REST endpoint", "A field of the spec"),
    *("A reason a job waits", "A Helm value"),
    *("A flag of vLLM in spec.args", "A check of an adapter", "A source of a model or adapter"),
}


@dataclass(frozen=True)
class Change:
    """A section: its title, the files it lists, and a text that its source files contain, if it names one."""

    title: str
    files: tuple[str, ...]
    example: str | None


@cache
def changes() -> dict[str, Change]:
    section = PAGE.read_text().partition("\n## What to change\n")[2].partition("\n## ")[0]
    parts = (part.partition("\n") for part in section.split("\n### ")[1:])
    return {title: parse(title, body) for title, _, body in parts}


def parse(title: str, body: str) -> Change:
    items = re.findall(r"^- (.*?): ", body, re.MULTILINE)
    example = re.search(r"^Example: `(.+?)`\.$", body, re.MULTILINE)
    return Change(
        title, tuple(path for item in items for path in re.findall("`(.+?)`", item)), example[1] if example else None
    )


@cache
def sources() -> dict[str, str]:
    paths = (
        path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".tpl")
    )
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in paths}
    return {path: text for path, text in texts.items() if not GENERATED.match(path)}


def test_page_lists_the_common_changes() -> None:
    assert set(changes()) >= EXPECTED


@pytest.mark.parametrize("title", sorted(changes()))
def test_listed_files_exist(title: str) -> None:
    listed = changes()[title].files

    assert listed
    assert [path for path in listed if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("title", sorted(title for title, change in changes().items() if change.example))
def test_every_source_file_with_the_example_is_listed(title: str) -> None:
    change = changes()[title]
    found = {path for path, text in sources().items() if str(change.example) in text}

    assert found
    assert found - set(change.files) == set()


@pytest.mark.parametrize(("title", "limit"), LIMITS.items())
def test_change_stays_small(title: str, limit: int) -> None:
    assert len([path for path in changes()[title].files if not path.startswith("tests/")]) <= limit
