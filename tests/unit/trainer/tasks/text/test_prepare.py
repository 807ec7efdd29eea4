import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.trainer import tiny
from trainyard_trainer.errors import DataError, StopRequested
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.text.batches import BatchSettings, TextBatches
from trainyard_trainer.tasks.text.chat import Encoded, Encoder
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import TrainOn
from trainyard_trainer.tasks.text.prepare import DataRequest, Prepared, prepare
from trainyard_trainer.tasks.text.token_cache import TokenCache
from trainyard_trainer.tasks.text.token_rows import Overlong


def run(
    tmp_path: Path,
    rows: Sequence[object],
    *,
    validation: Sequence[object] | float | None = None,
    max_length: int = 64,
    overlong: Overlong = "drop",
    train_on: TrainOn = "completions",
    log: list[str] | None = None,
    cache: TokenCache | None = None,
) -> Prepared:
    held: ExampleFile | float | None
    if isinstance(validation, float) or validation is None:
        held = validation
    else:
        held = ExampleFile(path=tiny.write_rows(tmp_path / "held.jsonl", validation), name="held.jsonl")
    request = DataRequest(
        train=ExampleFile(path=tiny.write_rows(tmp_path / "rows.jsonl", rows), name="rows.jsonl"),
        validation=held,
        overlong=overlong,
        train_on=train_on,
        batches=BatchSettings(batch_size=1, max_length=max_length, packing=True, pad_token=2, seed=0),
    )
    lines = log if log is not None else []
    encoder = Encoder(tiny.make_tokenizer(), train_on, "tiny")
    return prepare(request, encoder, cache=cache, log=lambda kind, sentence: lines.append(f"{kind}: {sentence}"))


def tokens(batches: TextBatches | None) -> set[tuple[int, ...]]:
    """Every row of some batches."""
    assert batches is not None
    rows, members = batches._rows, batches._members
    return {tuple(rows.tokens[rows.starts[row] : rows.starts[row + 1]].tolist()) for row in members}


def test_fraction_is_held_out_without_leaks(tmp_path: Path) -> None:
    rows = tiny.questions(60)
    prepared = run(tmp_path, rows + rows[:30], validation=0.3)
    train, held = tokens(prepared.train.batches), tokens(prepared.evaluation)
    assert not train & held
    assert len(train | held) == 60
    assert 8 < len(held) < 30
    assert prepared.metrics["trainRows"] + prepared.metrics["evalRows"] == 90
    more = run(tmp_path, tiny.questions(80), validation=0.3)
    assert held < tokens(more.evaluation)


def test_tiny_fraction_holds_out_one_row(tmp_path: Path) -> None:
    assert run(tmp_path, tiny.questions(10), validation=0.0001).metrics["evalRows"] == 1
    with pytest.raises(DataError, match="has too few different rows"):
        run(tmp_path, tiny.questions(1) * 5, validation=0.1)


def test_overlap_of_validation_and_training_rows_is_logged(tmp_path: Path) -> None:
    log: list[str] = []
    run(tmp_path, tiny.questions(10), validation=tiny.questions(6, start=7), log=log)
    assert any(line.startswith("ValidationOverlap: 3 of 6 validation rows") for line in log)
    log.clear()
    run(tmp_path, tiny.questions(10), validation=tiny.questions(6, start=10), log=log)
    assert not any("ValidationOverlap" in line for line in log)


def test_overlong_rows_are_dropped_or_truncated_and_counted(tmp_path: Path) -> None:
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


def test_no_usable_row_raises_data_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"All 5 rows of rows.jsonl are longer than spec.llm.maxLength 8: the shortest has"
    ) as caught:
        run(tmp_path, tiny.questions(5), max_length=8)
    longest = caught.value.message.rsplit(" ", 1)[-1].rstrip(".")
    assert run(tmp_path, tiny.questions(5), max_length=int(longest)).metrics["trainRows"] == 5
    assert longest in caught.value.advice
    with pytest.raises(DataError, match=r"No row of rows.jsonl has an answer within"):
        run(tmp_path, tiny.questions(5), max_length=8, overlong="truncate")


def test_fingerprint_changes_with_rows_and_settings(tmp_path: Path) -> None:
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


def test_stop_request_is_polled_between_rows(tmp_path: Path) -> None:
    stop = StopFlag()
    stop.request()
    request = DataRequest(
        train=ExampleFile(path=tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(3)), name="rows.jsonl"),
        validation=None,
        overlong="drop",
        train_on="all",
        batches=BatchSettings(batch_size=1, max_length=64, packing=True, pad_token=2, seed=0),
    )
    with pytest.raises(StopRequested):
        prepare(request, Encoder(tiny.make_tokenizer(), "all", "tiny"), poll=stop.check)


def test_split_of_long_texts_keeps_every_token(tmp_path: Path) -> None:
    log: list[str] = []
    texts = [{"text": " ".join(f"{number}" for number in range(count))} for count in (3, 40, 200)]
    whole = run(tmp_path, texts, max_length=2000)
    split = run(tmp_path, texts, overlong="split", max_length=32, log=log)
    assert split.train.batches.num_loss_tokens == whole.train.batches.num_loss_tokens
    assert max(len(row) for row in tokens(split.train.batches)) == 32
    assert split.metrics["rowsSplit"] == 2
    assert any(line.startswith("RowsSplit: 2 of 3 rows of rows.jsonl are longer") for line in log)
    conversation = {"query": "x " * 100, "response": "the moon"}
    assert run(tmp_path, [conversation, *tiny_pairs(3)], overlong="split").metrics["rowsDropped"] == 1


def test_origins_map_micro_batch_rows_to_lines(tmp_path: Path) -> None:
    lengths = {"A": 9, "B": 200, "C": 5, "D": 40, "E": 7, "F": 3}
    texts = [{"text": letter * length} for letter, length in lengths.items()]
    train = run(tmp_path, texts, max_length=32, overlong="split", train_on="all").train
    tokenizer = tiny.make_tokenizer()
    lines = set()
    for epoch in (0, 1):
        for index in range(train.num_micro_batches(epoch)):
            batch, origins = train.micro_batch(epoch, index), train.origins(epoch, index)
            letters = set(tokenizer.decode(batch.input_ids[0])) & set("ABCDEF")
            assert letters == {"ABCDEF"[line - 1] for _, line in origins}
            lines |= set(origins)
    assert lines == {("rows.jsonl", line) for line in range(1, 7)}
    dropped = run(tmp_path, texts, max_length=32, train_on="all").train
    kept = {line for index in range(dropped.num_micro_batches(0)) for _, line in dropped.origins(0, index)}
    assert kept == {1, 3, 5, 6}


def tiny_pairs(count: int) -> list[dict[str, str]]:
    return [{"query": f"who is {number}", "response": "the moon"} for number in range(count)]


def test_pieces_of_a_held_out_text_stay_together(tmp_path: Path) -> None:
    texts = [{"text": letter * 60} for letter in "ABCDEFGHIJKL"]
    prepared = run(tmp_path, texts, validation=0.4, overlong="split", max_length=16)
    end = tiny.make_tokenizer().eos_token_id
    train, held = (
        {token for row in tokens(part) for token in row} - {end}
        for part in (prepared.train.batches, prepared.evaluation)
    )
    assert len(train | held) == 12
    assert not train & held


@given(st.integers(2, 60), st.integers(2, 20))
def test_each_token_of_a_split_row_carries_loss_once(length: int, limit: int) -> None:
    row = Encoded(list(range(length)), [number % 3 > 0 for number in range(length)])
    pieces = row.pieces(limit)
    assert all(1 < len(piece.tokens) <= limit for piece in pieces)
    learnt = [token for piece in pieces for token, loss in zip(piece.tokens[1:], piece.loss[1:], strict=True) if loss]
    assert learnt == [number for number in range(1, length) if number % 3 > 0]


def test_tokenized_rows_are_unchanged(tmp_path: Path) -> None:
    prepared = run(tmp_path, [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}])
    assert tokens(prepared.train.batches) == {(5, 6, 7, 8)}
    assert prepared.train.batches.num_loss_tokens == 2


def test_resumed_run_loads_cached_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    cache = TokenCache(tmp_path / "cache")
    rows = tiny.questions(12)
    first = run(tmp_path, rows, validation=0.2, cache=cache)
    assert [path.name.startswith("tokens-") for path in cache.directory.iterdir()] == [True]
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode_all", lambda *_arguments: pytest.fail("tokenised again"))
        second = run(tmp_path, rows, validation=0.2, cache=cache, log=log)
    assert any(line.startswith("TokensReused") for line in log)
    assert second.train.fingerprint == first.train.fingerprint == run(tmp_path, rows, validation=0.2).train.fingerprint
    assert second.metrics == first.metrics
    batches = range(first.train.num_micro_batches(0))
    assert [second.train.origins(0, at) for at in batches] == [first.train.origins(0, at) for at in batches]
    others = (
        run(tmp_path, rows[1:], cache=cache),
        run(tmp_path, rows, cache=cache, train_on="all"),
        run(tmp_path, rows, cache=cache, max_length=65),
        run(tmp_path, rows, cache=cache, overlong="truncate"),
    )
    assert len(list(cache.directory.iterdir())) == 5
    assert len({other.train.fingerprint for other in others} | {first.train.fingerprint}) == 5


@pytest.mark.parametrize("place", [-1, -40, 100, 400])
def test_damaged_cache_is_tokenised_again(tmp_path: Path, place: int) -> None:
    log: list[str] = []
    cache = TokenCache(tmp_path / "cache")
    wanted = run(tmp_path, tiny.questions(12), cache=cache).train.fingerprint
    (path,) = cache.directory.iterdir()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert run(tmp_path, tiny.questions(12), cache=cache, log=log).train.fingerprint == wanted
    assert not any("TokensReused" in line for line in log)
    run(tmp_path, tiny.questions(12), cache=cache, log=log)
    assert any("TokensReused" in line for line in log)
    assert len(list(cache.directory.iterdir())) == 1


def test_only_old_temporary_files_are_removed(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path / "cache")
    cache.directory.mkdir()
    fresh, old = cache.directory / ".tmp-fresh", cache.directory / ".tmp-old"
    for path in (fresh, old):
        path.write_bytes(b"half")
    two_days_ago = fresh.stat().st_mtime - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    run(tmp_path, tiny.questions(3), cache=cache)
    assert (fresh.exists(), old.exists()) == (True, False)


def test_cache_write_error_does_not_end_the_run(tmp_path: Path) -> None:
    log: list[str] = []
    (tmp_path / "cache").write_text("a file")
    assert run(tmp_path, tiny.questions(3), cache=TokenCache(tmp_path / "cache"), log=log).metrics["trainRows"] == 3
    assert any(line.startswith("TokensNotKept") for line in log)


def test_warnings_are_logged_with_counts_and_again_from_the_cache(tmp_path: Path) -> None:
    rows = [{**row, "id": number} for number, row in enumerate(tiny.questions(5))] + tiny.questions(3, start=9)
    cache = TokenCache(tmp_path / "cache")
    for _ in range(2):
        log: list[str] = []
        run(tmp_path, rows, log=log, cache=cache)
        assert "FieldIgnored: 5 of 8 rows of rows.jsonl have the field 'id', which training does not use." in log
