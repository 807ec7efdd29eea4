"""The engine's name of an adapter is replaced in a stream, wherever a chunk ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainyard_serving.proxy.rewriting import Replacer

OLD, NEW = b"bot@0123456789ab", b"bot"


@given(
    parts=st.lists(st.sampled_from([OLD, NEW, b"b", b"bot@01", b'{"model":"', b'"}\n\n', b"\xc3\xa9"])), cuts=st.data()
)
def test_every_chunking_gives_what_one_replacement_gives(parts: list[bytes], cuts: st.DataObject) -> None:
    text = b"".join(parts)
    ends = sorted(cuts.draw(st.lists(st.integers(0, len(text)))))
    replacer, shown = Replacer(OLD, NEW), b""
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        shown += replacer.feed(text[start:end])
    assert shown + replacer.finish() == text.replace(OLD, NEW)


def test_nothing_is_held_back_that_cannot_become_the_name() -> None:
    replacer = Replacer(OLD, NEW)
    assert replacer.feed(b'data: {"model":"bot@0123456789ab"}\n\n') == b'data: {"model":"bot"}\n\n'
    assert replacer.finish() == b""
