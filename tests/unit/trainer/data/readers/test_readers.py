"""Readers: rows round-trip through every file type, with one error per invalid row."""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_trainer.data.readers import delimited, json_array, jsonl, lines
from trainyard_trainer.data.readers.files import read_rows
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError, RowError
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.registry import COLUMNS

ROWS = [{"text": "one"}, {"text": "two"}]


class Dripping(io.RawIOBase):
    """Returns a few bytes per read, so that every token crosses a chunk boundary."""

    def __init__(self, content: bytes, size: int) -> None:
        self.content = io.BytesIO(content)
        self.size = size

    def read(self, size: int = -1) -> bytes:
        return self.content.read(self.size if size < 0 else min(size, self.size))


def values(rows: Iterable[Row | RowError]) -> list[Any]:
    return [row.values if isinstance(row, Row) else row.kind for row in rows]


def array(content: bytes, size: int = 7) -> Iterator[Row | RowError]:
    return json_array.read(Dripping(content, size), "rows.json", COLUMNS)  # type: ignore[arg-type]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(['a"b', "]", "\\", "{,", "é\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
objects = st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=4), max_size=5)


@given(objects, st.integers(1, 20), st.sampled_from([None, 1]), st.booleans())
def test_array_is_split_into_its_elements(
    rows: list[dict[str, object]], size: int, indent: int | None, escaped: bool
) -> None:
    content = json.dumps(rows, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    assert values(array(b"\xef\xbb\xbf \n" + content + b"\n", size)) == rows


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (b'[{"a": 1}, {"a": nope}, {"a": 2}]', [{"a": 1}, "NotJson", {"a": 2}]),
        (b'[{"a": "\xff"}, {"a": 2}]', ["NotUtf8", {"a": 2}]),
        (b'[1, "x", {"a": 2}]', ["WrongType", "WrongType", {"a": 2}]),
        (b'[{"a": 1},, {"a": 2}]', [{"a": 1}, "BrokenArray", {"a": 2}]),
        (b'[{"a": 1},]', [{"a": 1}, "BrokenArray"]),
        (b"[]", []),
    ],
)
def test_invalid_element_does_not_hide_others(content: bytes, kinds: list[object]) -> None:
    assert values(array(content)) == kinds


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'[{"a": 1}, {"a', "row 2: the file ends inside the array"),
        (b'[{"a": "x]', "the file ends inside the array"),
        (b'[{"a": 1}] {"a": 2}', "something follows the end"),
    ],
)
def test_unterminated_array_or_trailing_text(content: bytes, problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        values(array(content))


def test_row_over_the_limit_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, json_array):
        monkeypatch.setattr(module, "LONGEST_ROW", 50)
    huge = json.dumps({"text": 'x"\\' * 100}).encode()
    small = b'{"text": "one"}'
    wanted = [ROWS[0], "TooLong", ROWS[0]]
    assert values(array(b"[" + small + b"," + huge + b", " + small + b"]")) == wanted
    assert values(jsonl.read(io.BytesIO(b"\n".join([small, huge, small])), "rows.jsonl", COLUMNS)) == wanted


def test_array_reader_reads_no_further_than_it_yields() -> None:
    row = json.dumps({"text": "x" * 1000}).encode() + b", "

    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return (b"[" if self.given == size else b"") + row * (size // len(row))

    stream = Endless()
    rows = json_array.read(stream, "rows.json", COLUMNS)  # type: ignore[arg-type]
    for _ in range(10_000):
        next(rows)
    assert stream.given < 12 << 20


def table(content: str | bytes) -> list[Any]:
    data = content if isinstance(content, bytes) else content.encode()
    return values(delimited.read(io.BytesIO(data), "rows.csv", COLUMNS))


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=8)


@given(st.lists(st.tuples(cells, cells), min_size=1), st.sampled_from([",", ";", "\t"]))
def test_csv_round_trip(records: list[tuple[str, str]], delimiter: str) -> None:
    output = io.StringIO()
    writer = csv.writer(output, delimiter=delimiter)
    writer.writerows([("instruction", "output"), *records])
    assert table(output.getvalue()) == [{"instruction": question, "output": answer} for question, answer in records]


def test_csv_cells_hold_lists_as_json() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    cell = json.dumps(turns).replace('"', '""')
    assert table(f'messages,text\n"{cell}",[1]\n,x\n') == [
        {"messages": turns, "text": "[1]"},
        {"messages": None, "text": "x"},
    ]
    (error,) = delimited.read(io.BytesIO(b"messages\nHi\n"), "rows.csv", COLUMNS)
    assert isinstance(error, RowError)
    assert (error.row, error.field) == (2, "messages")


def test_invalid_record_does_not_hide_others() -> None:
    assert table("a,b\n1,2,3\n4,5\n\n6\n") == ["RaggedRow", {"a": "4", "b": "5"}, "RaggedRow"]
    assert table(b"a,b\n1,\xff\n4,5\n") == ["NotUtf8", {"a": "4", "b": "5"}]
    assert table('a,b\n1,"x"y\n4,5\n') == ["NotCsv", {"a": "4", "b": "5"}]
    rows = list(delimited.read(io.BytesIO(b'a,b\n1,"x\ny"\n4\n'), "rows.csv", COLUMNS))
    assert [row.row if isinstance(row, RowError) else row.number for row in rows] == [2, 3]
    with pytest.raises(DataError, match="names 'a' twice"):
        table("a,a\n1,2\n")


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


AS_LINES = b'{"text": "one"}\n{"text": "two"}\n'
AS_ARRAY = json.dumps(ROWS).encode()
AS_TABLE = b"text\none\ntwo\n"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("rows.jsonl", AS_LINES, "JSON Lines"),
        ("rows.csv", AS_LINES, "JSON Lines"),
        ("rows.txt", AS_ARRAY, "a JSON array"),
        ("rows.jsonl", b" \n" + AS_ARRAY, "a JSON array"),
        ("rows.tsv", AS_TABLE, "CSV"),
        ("rows.jsonl.gz", gzip.compress(AS_LINES, mtime=0), "gzip"),
        ("rows.csv.gz", gzip.compress(AS_TABLE, mtime=0), "gzip"),
    ],
)
def test_file_type_is_detected_by_content_then_by_name(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    file = ExampleFile(path=written(tmp_path, name, content), name=name)
    assert file.type_name == kind
    assert values(file.rows()) == ROWS
    assert file.resolve_format() == "text"


@pytest.mark.parametrize(
    ("name", "head", "sentence"),
    [
        ("rows.jsonl", "hi".encode("utf-16"), "is UTF-16 text"),
        ("rows.parquet", b"{}", "is not a Parquet file"),
        ("rows.xls", b"\xd0\xcf\x11\xe0", "is an old Office document"),
        ("rows.pkl", b"\x80\x04x", "is a pickle"),
        ("rows.parquet", b"PAR1abcdefgh", "is not a complete Parquet file"),
    ],
)
def test_unsupported_file_types_are_refused(tmp_path: Path, name: str, head: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        list(read_rows(written(tmp_path, name, head), name, COLUMNS))


def test_max_rows_applies_to_arrays(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.json", AS_ARRAY)
    assert values(ExampleFile(path=path, name="rows.json", max_rows=1).rows()) == ROWS[:1]
