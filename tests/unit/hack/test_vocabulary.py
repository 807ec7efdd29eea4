"""The vocabulary check finds refused words in prose and in identifiers, and nothing else."""

import pytest

from vocabulary import ALLOWED, DISCOURAGED, REFUSED, uses


@pytest.mark.parametrize(
    "text",
    ["It was told.", "told_at = 3", "class Told:", "wasTold()", "_told", "# Told once", "def test_is_told(): ..."],
)
def test_refused_word_is_found(text: str) -> None:
    (found,) = uses("a.py", text)

    assert found.rule.phrase == "told"


@pytest.mark.parametrize(
    "text", ["household", "untold", "trainyard", "Trainyard", "trainyard_crds", "backyards", "HEARTBEAT_SECONDS"]
)
def test_longer_word_is_not_a_use(text: str) -> None:
    assert not list(uses("a.py", text))


@pytest.mark.parametrize("text", ["is let in", "is let\nin", "# let\n# in", "is_let_in"])
def test_phrase_is_found_across_lines_and_in_identifiers(text: str) -> None:
    (found,) = uses("a.py", text)

    assert found.rule.phrase == "let in"
    assert found.line == 1


def test_use_names_file_line_and_better_word() -> None:
    (found,) = uses("docs/a.md", "one\ntwo\nnobody waits")

    assert str(found) == "docs/a.md:3: 'nobody'; write: no client, no pod, no one"


def test_file_name_is_checked() -> None:
    (found,) = uses("tests/queueing/yard.py", "")

    assert (found.rule.phrase, found.line) == ("yard", 0)


def test_field_of_the_api_is_allowed() -> None:
    assert not list(uses("docs/a.md", "`evaluation.earlyStopping.patience` counts evaluations"))
    assert list(uses("docs/a.md", "patience"))


def test_every_word_has_a_replacement_and_every_exception_a_reason() -> None:
    assert all(rule.better for rule in (*REFUSED, *DISCOURAGED))
    assert all(entry.reason for entry in ALLOWED)
