"""Archives: reading without extraction, and errors for hostile ones."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainyard_trainer.data import archives
from trainyard_trainer.data.archives import Limits, members
from trainyard_trainer.data.rows import Row
from trainyard_trainer.errors import DataError
from trainyard_trainer.tasks.text.example_file import ExampleFile

LINES = b'{"text": "one"}\n{"text": "two"}\n'
Pack = Callable[[Path, list[tuple[str, bytes]]], Path]


def zipped(folder: Path, files: list[tuple[str, bytes]], kind: int = stat.S_IFREG) -> Path:
    path = folder / "rows.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, content)
    return path


def tarred(folder: Path, files: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> Path:
    path = folder / "rows.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def content(path: Path, limits: Limits = archives.LIMITS) -> dict[str, bytes]:
    return {name: stream.read() for name, stream in members(path, path.name, limits)}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_rows_of_all_file_types_follow_archive_order(tmp_path: Path, pack: Pack) -> None:
    files = [
        ("README.md", b"hello"),
        ("b/part-1.jsonl", LINES),
        ("__MACOSX/b/._part-1.jsonl", b"\x00"),
        ("b/part-0.json", b'[{"text": "three"}]'),
        ("a.csv", b"text\nfour\n"),
    ]
    path = pack(tmp_path, files)
    file = ExampleFile(path=path, name="rows", max_rows=None)
    rows = [(row.file, row.number, row.values["text"]) for row in file.rows() if isinstance(row, Row)]
    assert rows == [
        ("rows/b/part-1.jsonl", 1, "one"),
        ("rows/b/part-1.jsonl", 2, "two"),
        ("rows/b/part-0.json", 1, "three"),
        ("rows/a.csv", 2, "four"),
    ]
    assert file.resolve_format() == "text"


parts = st.sampled_from(["..", ".", "a", "", "etc", "C:", "\\", "\n", "é", "~"])
names = st.lists(parts, max_size=4).map(lambda some: "".join(f"{part}/" for part in some))


@given(names, st.sampled_from([zipped, tarred]))
@example("../", zipped)
@example("/etc/", tarred)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_unsafe_member_paths_are_refused(tmp_path: Path, name: str, pack: Pack) -> None:
    path = pack(tmp_path, [(f"{name}rows.jsonl", LINES)])
    before = {found for found in tmp_path.rglob("*") if found != path}
    if {".."} & set(name.split("/")) or name.startswith("/") or set("\\\n:") & set(name):
        with pytest.raises(DataError, match="path leaves the extraction folder"):
            content(path)
    else:
        assert list(content(path).values()) == [LINES]
    assert {found for found in tmp_path.rglob("*") if found != path} == before


@pytest.mark.parametrize(
    ("pack", "kind"),
    [
        (zipped, stat.S_IFLNK),
        (zipped, stat.S_IFCHR),
        (zipped, stat.S_IFIFO),
        (tarred, tarfile.SYMTYPE),
        (tarred, tarfile.LNKTYPE),
        (tarred, tarfile.CHRTYPE),
        (tarred, tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, pack: Any, kind: Any) -> None:
    with pytest.raises(DataError, match=r"contains a link or a device, 'rows.jsonl'"):
        content(pack(tmp_path, [("rows.jsonl", b"/etc/passwd")], kind))


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["inner.zip", "inner.tar.gz", "inner.jsonl"])
def test_nested_archives_are_refused(tmp_path: Path, pack: Pack, name: str) -> None:
    inner = zipped(tmp_path, [("rows.jsonl", LINES)]).read_bytes()
    with pytest.raises(DataError, match=f"contains another archive, '{name}'"):
        content(pack(tmp_path, [(name, inner)]))


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_limits_count_decompressed_bytes_and_members(tmp_path: Path, pack: Pack) -> None:
    path = pack(tmp_path, [(f"{number}.jsonl", b" " * 10_000) for number in range(20)])
    with pytest.raises(DataError, match="has more than 19 members"):
        content(path, Limits(members=19))
    with pytest.raises(DataError, match="expands to more than 0 MiB"):
        content(path, Limits(total_bytes=150_000))
    with pytest.raises(DataError, match="expands to more than 3 times its size"):
        content(path, Limits(ratio=3, ratio_from=1000))
    assert len(content(path, Limits(members=20, total_bytes=10**6, ratio=10_000))) == 20


def test_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(DataError, match="expands to more than 200 times its size"):
        content(path, Limits(ratio_from=1 << 20))
    path.write_bytes(gzip.compress(gzip.compress(LINES)))
    with pytest.raises(DataError, match="contains another archive"):
        content(path)


@pytest.mark.parametrize("pack", [zipped, tarred])
@given(cut=st.integers(1, 200), flip=st.integers(0, 400), bit=st.integers(0, 7))
@example(cut=1, flip=392, bit=2)  # sets the compression method of the zip to bzip2
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_archive_raises_data_error_or_reads_whole(
    tmp_path: Path, pack: Pack, cut: int, flip: int, bit: int
) -> None:
    path = pack(tmp_path, [("a.jsonl", LINES * 5), ("b.jsonl", LINES)])
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[flip % len(whole)] ^= 1 << bit
    for damaged in (whole[: max(1, len(whole) - cut)], bytes(flipped)):
        path.write_bytes(damaged)
        assert error_of(path).startswith("rows")


def test_member_offset_before_the_file_is_damage(tmp_path: Path) -> None:
    path = zipped(tmp_path, [("a.jsonl", LINES)])
    whole = bytearray(path.read_bytes())
    end = whole.rindex(b"PK\x05\x06")
    whole[end + 16 : end + 20] = (int.from_bytes(whole[end + 16 : end + 20], "little") + 500).to_bytes(4, "little")
    path.write_bytes(whole)
    assert error_of(path) == "rows is truncated or damaged: a member starts before the file."


def error_of(path: Path) -> str:
    try:
        list(ExampleFile(path=path, name="rows").rows())
    except DataError as error:
        return error.message
    return "rows are whole"
