"""Invalid rows are skipped on request, counted and named, up to a limit."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.text.data_cli import Run
from trainyard_crds.report import MOST_INVALID_ROWS, ROW_LIMIT, ROW_MESSAGE_LIMIT
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.text.batches import BatchSettings
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.invalid_rows import SkippedRows, invalid_rows
from trainyard_trainer.tasks.text.prepare import DataRequest, Prepared, prepare
from trainyard_trainer.tasks.text.token_cache import TokenCache

REFUSED = {"messages": [{"role": "assistant", "content": "x"}, {"role": "system", "content": "y"}]}
"""The strict template below refuses it; the format does not."""
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('System turns come first')"
    " }}{% endif %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def prepared(
    path: Path, *, limit: float | None = 0.5, cache: TokenCache | None = None, log: list[str] | None = None
) -> Prepared:
    request = DataRequest(
        train=ExampleFile(path=path, name="rows.jsonl", skip_limit=limit),
        validation=None,
        overlong="drop",
        train_on="completions",
        batches=BatchSettings(batch_size=1, max_length=64, packing=True, pad_token=2, seed=0),
    )
    lines = log if log is not None else []
    encoder = Encoder(tiny.make_tokenizer(STRICT), "completions", "tiny")
    return prepare(
        request,
        encoder,
        cache=cache,
        poll=StopFlag().check,
        log=lambda kind, sentence: lines.append(f"{kind}: {sentence}"),
    )


def some_invalid(path: Path) -> Path:
    good = tiny.questions(40)
    rows: list[Any] = [{"messages": 7}, *good[:20], REFUSED, *good[20:]]
    tiny.write_rows(path, rows)
    path.write_text(path.read_text() + '{"messages": [\n')
    return path


def test_invalid_rows_are_skipped_counted_and_named(tmp_path: Path) -> None:
    log: list[str] = []
    found = prepared(some_invalid(tmp_path / "rows.jsonl"), log=log)
    assert found.invalid_rows is not None
    assert found.invalid_rows.count == 3
    assert [row.row for row in found.invalid_rows.first] == [
        "rows.jsonl, row 1",
        "rows.jsonl, row 22",
        "rows.jsonl, row 43",
    ]
    assert found.invalid_rows.first[0].message == "Field 'messages' must be a list but is a number."
    assert found.metrics["trainRows"] == 40
    (line,) = (line for line in log if line.startswith("RowsInvalid"))
    assert line.startswith("RowsInvalid: 3 of 43 rows of rows.jsonl are invalid and were skipped")


def test_an_invalid_row_ends_the_run_by_default(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1: field 'messages'"):
        prepared(some_invalid(tmp_path / "rows.jsonl"), limit=None)


def test_valid_rows_train_as_without_the_invalid_ones(tmp_path: Path) -> None:
    clean = prepared(tiny.write_rows(tmp_path / "clean.jsonl", tiny.questions(40)), limit=None)
    assert prepared(some_invalid(tmp_path / "rows.jsonl")).train.fingerprint == clean.train.fingerprint


def test_the_same_rows_are_skipped_with_and_without_the_token_cache(tmp_path: Path) -> None:
    path, cache = some_invalid(tmp_path / "rows.jsonl"), TokenCache(tmp_path / "cache")
    log: list[str] = []
    first, second = prepared(path, cache=cache), prepared(path, cache=cache, log=log)
    assert any(line.startswith("TokensReused") for line in log)
    assert (second.train.fingerprint, second.invalid_rows) == (first.train.fingerprint, first.invalid_rows)
    with pytest.raises(DataError):
        prepared(path, cache=cache, limit=None)


def test_more_invalid_rows_than_the_limit_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepared(some_invalid(tmp_path / "rows.jsonl"), limit=0.05)
    assert caught.value.message.startswith(
        "3 of 43 rows of rows.jsonl are invalid, more than spec.dataset.maxInvalidFraction 0.05. The first: rows.jsonl,"
        " row 1: Field 'messages'"
    )
    assert "raise spec.dataset.maxInvalidFraction" in caught.value.advice


def test_a_file_with_no_valid_row_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 2 rows of rows\.jsonl are invalid"):
        prepared(tiny.write_rows(tmp_path / "rows.jsonl", [{"messages": 7}, {"messages": 8}]))


def test_the_format_is_that_of_most_rows(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"nothing": 1}, *tiny.questions(10)]
    found = prepared(tiny.write_rows(tmp_path / "rows.jsonl", rows))
    assert found.invalid_rows is not None
    assert (found.invalid_rows.count, found.metrics["trainRows"]) == (2, 10)


def test_damage_of_the_file_ends_the_run_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "one"}, {"text": "two"}, {"te')
    with pytest.raises(DataError):
        prepared(path)


def test_names_of_invalid_rows_hold_no_control_characters(tmp_path: Path) -> None:
    bad = {"messages": [{"role": "\x1b[31m", "content": "x"}]}
    found = prepared(tiny.write_rows(tmp_path / "rows.jsonl", [bad, *tiny.questions(10)]))
    assert found.invalid_rows is not None
    assert found.invalid_rows.first[0].message.isprintable()


def test_validation_of_a_dataset_that_skips_says_so(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    config = tmp_path / "run.json"
    data = tiny.write_rows(tmp_path / "rows.jsonl", [{"messages": 7}, *tiny.questions(40)])

    def validated(**dataset: object) -> tuple[int, Any, str]:
        document = {"runDirectory": str(tmp_path / "run"), "task": "llm", "model": {"source": f"file://{tiny_model}"}}
        config.write_text(json.dumps({**document, "dataset": {"source": f"file://{data}", **dataset}}))
        return run("validate", "--config", config)

    code, report, _ = validated(onInvalidRow="skip")
    assert (code, report["problems"], report["rowsSkipped"]) == (0, 1, 1)
    code, report, error = validated()
    assert (code, report["problems"]) == (65, 1)
    assert "spec.dataset.onInvalidRow: skip" in error
    code, report, error = validated(onInvalidRow="skip", maxInvalidFraction=0.01)
    assert (code, report["problemsByKind"]["TooManyInvalidRows"]) == (65, 1)


def test_named_rows_fit_the_status() -> None:
    skipped = SkippedRows()
    for row in range(6):
        skipped.add(RowError("p" * 300, "", file="f" * 300, row=row, kind="WrongType"))
    found = invalid_rows([skipped, SkippedRows()])
    assert found is not None
    assert (found.count, len(found.first)) == (6, MOST_INVALID_ROWS)
    assert (len(found.first[0].row), len(found.first[0].message)) == (ROW_LIMIT, ROW_MESSAGE_LIMIT)
    assert found.first[1].row.endswith("f, row 1")
