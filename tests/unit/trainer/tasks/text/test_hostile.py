"""Hostile files through every reader: a DataError, bounded memory, and no other error."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from trainyard_trainer.data import archives
from trainyard_trainer.data.archives import Limits
from trainyard_trainer.data.readers import lines
from trainyard_trainer.data.readers.parquet import _batch_rows
from trainyard_trainer.errors import DataError, TrainerError
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.validation import Report, validate

ROWS: list[dict[str, Any]] = [{"query": f"question {number}", "response": f"answer {number}"} for number in range(50)]
HUGE = {"query": "Hi", "response": "x" * 50_000_000}
Rows = list[dict[str, Any]]


def jsonl(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def array(rows: Rows) -> bytes:
    return json.dumps(rows).encode()


def csv(rows: Rows) -> bytes:
    return b"query,response\n" + b"".join(f"{row['query']},{row['response']}\n".encode() for row in rows)


def table(rows: Rows) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def tar_gz(name: str, content: bytes) -> bytes:
    return gzip.compress(tarred(name, content))


def gz(_name: str, content: bytes) -> bytes:
    return gzip.compress(content)


PLAIN: dict[str, Callable[[Rows], bytes]] = {"jsonl": jsonl, "json": array, "csv": csv, "parquet": table}
PACKS: dict[str, Callable[[str, bytes], bytes]] = {"zip": zipped, "tar": tarred, "tar.gz": tar_gz, "gz": gz}
READERS = [*PLAIN, *(f"{kind}.{pack}" for kind in PLAIN for pack in PACKS)]
"""Every file type, plain and in every archive type."""


def content(reader: str, rows: Rows, spoil: Callable[[bytes], bytes] = lambda data: data) -> bytes:
    """A file for a reader; `spoil` changes the file of rows before it is archived."""
    kind, _, pack = reader.partition(".")
    data = spoil(PLAIN[kind](rows))
    return PACKS[pack](f"rows.{kind}", data) if pack else data


def checked(directory: Path, reader: str, data: bytes) -> Report:
    """The report of `data validate`; reading as for training must end with its rows or a TrainerError."""
    path = directory / f"train.{reader}"
    path.write_bytes(data)
    file = ExampleFile(path=path, name=path.name)
    with suppress(TrainerError):
        list(file.examples())
    report = validate([file])
    for problem in report.problems:
        assert problem.message.endswith(".")
        assert problem.remedy
        assert "Traceback" not in problem.message
    return report


@pytest.mark.parametrize("reader", READERS)
def test_complete_file_is_read(tmp_path: Path, reader: str) -> None:
    report = checked(tmp_path, reader, content(reader, ROWS))
    assert (report.rows, report.total) == (50, 0)


@pytest.mark.parametrize("keep", [1, 3, 0.3, 0.7, -1, -7])
@pytest.mark.parametrize("reader", READERS)
def test_truncated_file_is_reported(tmp_path: Path, reader: str, keep: float) -> None:
    def cut(data: bytes) -> bytes:
        return data[: int(len(data) * keep) if 0 < keep < 1 else int(keep)]

    inner = checked(tmp_path, reader, content(reader, ROWS, cut))
    outer = checked(tmp_path, reader, cut(content(reader, ROWS)))
    # A truncated text table is undetectable if its last row still has every field.
    is_text = reader.partition(".")[0] == "csv" or (reader.startswith("jsonl") and keep == -1)
    assert inner.total > 0 or is_text
    # A tar ends with zero blocks that are not required.
    assert outer.total > 0 or is_text or reader.endswith(".tar")


@pytest.mark.parametrize("reader", READERS)
def test_empty_file_is_reported(tmp_path: Path, reader: str) -> None:
    assert checked(tmp_path, reader, b"").total == 1
    assert checked(tmp_path, reader, content(reader, ROWS, lambda _data: b"")).total == 1


@pytest.mark.parametrize("reader", [one for one in READERS if not one.startswith("parquet")])
def test_text_that_is_not_utf_8_is_reported_with_its_row(tmp_path: Path, reader: str) -> None:
    rows = [*ROWS[:7], {"query": "Gr\u00fc\u00dfe", "response": "x"}, *ROWS[7:]]
    kind, _, pack = reader.partition(".")
    written = {"jsonl": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("latin-1"),
               "json": lambda: json.dumps(rows, ensure_ascii=False).encode("latin-1"),
               "csv": lambda: csv(rows).decode().encode("latin-1")}[kind]()  # fmt: skip
    report = checked(tmp_path, reader, PACKS[pack](f"rows.{kind}", written) if pack else written)
    assert report.counts == {"NotUtf8": 1}
    assert report.problems[0].row == (9 if kind == "csv" else 8)


@pytest.mark.parametrize("reader", PLAIN)
def test_row_of_50_megabytes_is_reported_and_other_rows_read(tmp_path: Path, reader: str) -> None:
    report = checked(tmp_path, reader, content(reader, [*ROWS[:5], HUGE, *ROWS[5:10]]))
    assert (report.rows, dict(report.counts)) == (11, {"TooLong": 1})


def test_nested_row_of_50_megabytes_is_reported(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x" * size}]}
        for size in (3, 50_000_000)
    ]
    for reader in ("jsonl", "parquet"):
        assert dict(checked(tmp_path, reader, content(reader, rows)).counts) == {"TooLong": 1}


def test_batches_of_a_dictionary_encoded_text_have_bounded_size(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * (20 << 20)]))
    path = tmp_path / "train.parquet"
    parquet.write_table(pa.table({"text": texts}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000
    metadata = parquet.ParquetFile(path).metadata
    assert _batch_rows(metadata) * (20 << 20) <= 256 << 20
    assert _batch_rows(parquet.ParquetFile(io.BytesIO(table(ROWS))).metadata) == 256


@pytest.mark.parametrize("pack", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("inner", ["zip", "tar", "tar.gz", "gz"])
def test_nested_archives_are_reported(tmp_path: Path, pack: str, inner: str) -> None:
    for name in (f"inner.{inner}", "rows.jsonl"):
        data = PACKS[pack](name, PACKS[inner]("rows.jsonl", jsonl(ROWS)))
        [problem] = checked(tmp_path, f"jsonl.{pack}", data).problems
        assert "contains another archive" in problem.message


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("pack", PACKS)
def test_archive_bomb_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pack: str) -> None:
    monkeypatch.setattr(archives, "LIMITS", Limits(ratio=5, ratio_from=1 << 16))
    rows = [{"query": "a" * 5000, "response": "a" * 5000}] * 200
    data = jsonl(rows) if kind == "parquet" else PLAIN[kind](rows)
    packed = PACKS[pack](f"rows.{kind}", data)
    monkeypatch.setattr(archives.members, "__defaults__", (archives.LIMITS,))
    report = checked(tmp_path, f"{kind}.{pack}", packed)
    if pack == "tar" and kind != "parquet":
        assert report.total == 0
    else:
        assert report.total > 0


@pytest.mark.parametrize(
    "name", ["../rows.jsonl", "/rows.jsonl", "C:\\rows.jsonl", "a/../../rows.jsonl", "rows\n.jsonl"]
)
@pytest.mark.parametrize("pack", ["zip", "tar", "tar.gz"])
def test_unsafe_member_paths_are_reported(tmp_path: Path, pack: str, name: str) -> None:
    [problem] = checked(tmp_path, f"jsonl.{pack}", PACKS[pack](name, jsonl(ROWS))).problems
    assert "path leaves the extraction folder" in problem.message


def test_member_without_a_name_is_reported(tmp_path: Path) -> None:
    data = zipped("rows.jsonl", jsonl(ROWS)).replace(b"rows.jsonl", b"\0ows.jsonl")
    [problem] = checked(tmp_path, "jsonl.zip", data).problems
    assert problem.message == "train.jsonl.zip is truncated or damaged: a member has no name."


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=20)
@given(data=st.data())
def test_file_with_changed_bytes_is_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, reader: str, data: st.DataObject
) -> None:
    whole = bytearray(content(reader, ROWS[:6]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    checked(tmp_path_factory.getbasetemp(), reader, bytes(whole))
    inner = content(reader, ROWS[:6], lambda plain: _changed(plain, data))
    checked(tmp_path_factory.getbasetemp(), reader, inner)


def _changed(plain: bytes, data: st.DataObject) -> bytes:
    at, drop = data.draw(st.integers(0, len(plain))), data.draw(st.integers(0, 40))
    return plain[:at] + data.draw(st.binary(max_size=12)) + plain[at + drop :]


@given(
    name=st.sampled_from(
        ["train.jsonl", "train.json", "train.csv", "train.tsv", "train.parquet", "train.zip", "train"]
    ),
    data=st.binary(max_size=200),
)
def test_any_bytes_under_any_name_are_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    file = ExampleFile(path=path, name=name)
    with suppress(DataError):
        list(file.examples())
    validate([file])


def test_row_limit_is_below_the_size_these_tests_use() -> None:
    assert lines.LONGEST_ROW < 50_000_000
