"""The Range header."""

from __future__ import annotations

import pytest

from trainyard_serving.artifacts.byte_range import UnsatisfiableError, parse


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        (" bytes=5-6 ", (5, 7)),
    ],
)
def test_range_within_100_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    ["", "bytes=", "bytes=-", "bytes=-0", "bytes=100-", "bytes=20-10", "bytes=a-b", "items=0-1", "bytes=0-1,5-6"],
)
def test_range_outside_100_bytes(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        parse(header, 100)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_empty_file_has_no_range(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        parse(header, 0)
