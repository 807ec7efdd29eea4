"""Media by URL are refused wherever they stand in a request."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard_serving.proxy.media import remote_media


def chat(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


INLINE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "see http://example.com/a.png"}]},
        chat({"type": "text", "text": "https://example.com"}),
        chat(INLINE),
        {"prompt": "a"},
        {},
        {"messages": None},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]},
    ],
)
def test_text_and_inline_media_pass(body: dict[str, Any]) -> None:
    assert remote_media(body) is None


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/a.png", "https://example.com", "file:///etc/passwd", "ftp://x", "", None, 7]
)
@pytest.mark.parametrize("field", ["image_url", "video_url", "audio_url"])
def test_other_addresses_are_refused(field: str, url: Any) -> None:
    assert remote_media(chat(INLINE, {"type": field, field: {"url": url}})) == field
    assert remote_media(chat({"type": field, field: url})) == field
    assert remote_media({"input": [{"content": [{"type": "input_image", field: url}]}]}) == field
