from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from tests.unit.trainer import tiny
from trainyard_trainer.data.batches import BatchSettings, TextBatches
from trainyard_trainer.data.chat import Encoder
from trainyard_trainer.data.prepare import DataRequest, Prepared, prepare
from trainyard_trainer.data.reader import RowFile
from trainyard_trainer.errors import DataError, StopRequested
from trainyard_trainer.stop import StopFlag


def run(
    tmp_path: Path,
    rows: Sequence[object],
    *,
    validation: Sequence[object] | float | None = None,
    max_length: int = 64,
    overlong: Literal["drop", "truncate"] = "drop",
    train_on: Literal["completions", "all"] = "completions",
    log: list[str] | None = None,
) -> Prepared:
    held: RowFile | float | None
    if isinstance(validation, float) or validation is None:
        held = validation
    else:
        held = RowFile(path=tiny.write_rows(tmp_path / "held.jsonl", validation), name="held.jsonl")
    request = DataRequest(
        train=RowFile(path=tiny.write_rows(tmp_path / "rows.jsonl", rows), name="rows.jsonl"),
        validation=held,
        overlong=overlong,
        train_on=train_on,
        batches=BatchSettings(batch_size=1, max_length=max_length, packing=True, pad_token=2, seed=0),
    )
    lines = log if log is not None else []
    encoder = Encoder(tiny.make_tokenizer(), train_on, "tiny")
    return prepare(request, encoder, log=lambda kind, sentence: lines.append(f"{kind}: {sentence}"))


def tokens(batches: TextBatches | None) -> set[tuple[int, ...]]:
    """Every row of some batches."""
    assert batches is not None
    rows, members = batches._rows, batches._members
    return {tuple(rows.tokens[rows.starts[row] : rows.starts[row + 1]].tolist()) for row in members}


def test_a_share_is_held_out_without_leaks(tmp_path: Path) -> None:
    rows = tiny.questions(60)
    prepared = run(tmp_path, rows + rows[:30], validation=0.3)
    train, held = tokens(prepared.train.batches), tokens(prepared.evaluation)
    assert not train & held
    assert len(train | held) == 60
    assert 8 < len(held) < 30
    assert prepared.metrics["trainRows"] + prepared.metrics["evalRows"] == 90
    more = run(tmp_path, tiny.questions(80), validation=0.3)
    assert held < tokens(more.evaluation)


def test_even_a_tiny_share_holds_out_one_row(tmp_path: Path) -> None:
    assert run(tmp_path, tiny.questions(10), validation=0.0001).metrics["evalRows"] == 1
    with pytest.raises(DataError, match="has too few different rows"):
        run(tmp_path, tiny.questions(1) * 5, validation=0.1)


def test_validation_rows_that_are_training_rows_are_counted(tmp_path: Path) -> None:
    log: list[str] = []
    run(tmp_path, tiny.questions(10), validation=tiny.questions(6, start=7), log=log)
    assert any(line.startswith("ValidationOverlap: 3 of 6 validation rows") for line in log)
    log.clear()
    run(tmp_path, tiny.questions(10), validation=tiny.questions(6, start=10), log=log)
    assert not any("ValidationOverlap" in line for line in log)


def test_longer_rows_are_dropped_or_cut_and_counted(tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "the moon " * 60}]}
    late = {"messages": [{"role": "user", "content": "x " * 200}, {"role": "assistant", "content": "the moon"}]}
    log: list[str] = []
    dropped = run(tmp_path, [*tiny.questions(5), long], log=log)
    assert (dropped.metrics["trainRows"], dropped.metrics["rowsDropped"]) == (5, 1)
    assert any(
        line.startswith("RowsDropped: 1 of 6 rows of rows.jsonl are longer than spec.llm.maxLength 64") for line in log
    )
    log.clear()
    cut = run(tmp_path, [*tiny.questions(5), long, late], overlong="truncate", log=log)
    assert (cut.metrics["trainRows"], cut.metrics["rowsTruncated"], cut.metrics["rowsDropped"]) == (6, 1, 1)
    assert max(len(row) for row in tokens(cut.train.batches)) == 64
    assert any(line.startswith("RowsWithoutLoss: 1 of 7") for line in log)


def test_rows_that_are_all_too_long(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"All 5 rows of rows.jsonl are longer than spec.llm.maxLength 8: the shortest has"
    ) as caught:
        run(tmp_path, tiny.questions(5), max_length=8)
    longest = caught.value.message.rsplit(" ", 1)[-1].rstrip(".")
    assert run(tmp_path, tiny.questions(5), max_length=int(longest)).metrics["trainRows"] == 5
    assert longest in caught.value.advice
    with pytest.raises(DataError, match=r"No row of rows.jsonl has an answer within"):
        run(tmp_path, tiny.questions(5), max_length=8, overlong="truncate")


def test_the_fingerprint_changes_with_rows_and_settings(tmp_path: Path) -> None:
    rows = tiny.questions(12)
    prints = [
        run(tmp_path, rows).train.fingerprint,
        run(tmp_path, rows[:-1]).train.fingerprint,
        run(tmp_path, rows[::-1]).train.fingerprint,
        run(tmp_path, rows, train_on="all").train.fingerprint,
        run(tmp_path, rows, overlong="truncate").train.fingerprint,
        run(tmp_path, rows, max_length=65).train.fingerprint,
        run(tmp_path, rows, validation=0.2).train.fingerprint,
        run(tmp_path, rows, validation=tiny.questions(3, start=20)).train.fingerprint,
        run(tmp_path, rows, validation=tiny.questions(3, start=30)).train.fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert run(tmp_path, rows).train.fingerprint == prints[0]


def test_a_request_to_stop_is_noticed_between_rows(tmp_path: Path) -> None:
    stop = StopFlag()
    stop.request()
    request = DataRequest(
        train=RowFile(path=tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(3)), name="rows.jsonl"),
        validation=None,
        overlong="drop",
        train_on="all",
        batches=BatchSettings(batch_size=1, max_length=64, packing=True, pad_token=2, seed=0),
    )
    with pytest.raises(StopRequested):
        prepare(request, Encoder(tiny.make_tokenizer(), "all", "tiny"), poll=stop.check)
