"""Parquet files: columns, nulls, and errors for damaged files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainyard_trainer.data.readers import parquet
from trainyard_trainer.data.rows import Columns, Row
from trainyard_trainer.errors import DataError
from trainyard_trainer.tasks.text.example_file import ExampleFile

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> ExampleFile:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=300)
    return ExampleFile(path=path, name=path.name)


def test_only_known_columns_are_read(tmp_path: Path) -> None:
    rows = [{"messages": TURNS, "image": b"x", "id": number, "trainOn": None} for number in range(1000)]
    found = list(write(tmp_path / "rows.parquet", rows).rows())
    assert found == [Row("rows.parquet", at + 1, {"messages": TURNS, "trainOn": None}) for at in range(1000)]
    file = ExampleFile(path=tmp_path / "rows.parquet", name="rows.parquet")
    assert (file.type_name, file.resolve_format()) == ("Parquet", "messages")


def test_nulls_do_not_decide_the_format(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.parquet", [{"messages": None, "text": "one"}, {"messages": None, "text": "two"}])
    assert [example.text for _, example in file.examples()] == ["one", "two"]


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: its fields \('question'\) fit no format"):
        write(tmp_path / "rows.parquet", [{"question": "x"}]).resolve_format()


@pytest.mark.parametrize("keep", [20, 200, -1])
def test_truncated_file_raises_data_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "rows.parquet"
    write(path, [{"text": "one" * number} for number in range(100)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"rows.parquet is not a complete Parquet file: "):
        list(ExampleFile(path=path, name="rows.parquet").rows())
    path.write_bytes(path.read_bytes()[:keep] + b"PAR1")
    with pytest.raises(DataError, match=r"rows.parquet is not a complete Parquet file: "):
        list(ExampleFile(path=path, name="rows.parquet").rows())


def test_row_over_the_limit_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LONGEST_ROW", 50)
    for value in ("x", b"x"):
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.Table.from_pylist([{"images": [value * 60]}, {"images": [value]}]), path)
        with path.open("rb") as stream:
            first, second = parquet.read(stream, path.name, Columns(frozenset({"images"}), frozenset()))
        assert not isinstance(first, Row)
        assert isinstance(second, Row)


def test_an_object_has_only_its_own_fields(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": {"a": 1}}, {"role": "assistant", "content": {"b": [{"c": 2}]}}]}]
    found = list(write(tmp_path / "rows.parquet", rows).rows())
    assert found == [Row("rows.parquet", 1, rows[0])]
