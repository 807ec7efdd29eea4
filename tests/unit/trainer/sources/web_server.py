"""A web server on loopback with ranges and ETags."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from tests.unit.trainer.sources.loopback import Handler, Site, serve_site


class Web(Site):
    """`files` by path; `status` overrides every response."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files
        self.status: int | None = None
        self.supports_ranges = True
        self.tokens: set[str | None] = set()


class WebHandler(Handler[Web]):
    def answer(self) -> None:
        self.site.tokens.add(self.headers.get("Authorization"))
        content = self.site.files.get(self.path)
        if self.site.status is not None or content is None:
            self.send(self.site.status or 404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": tag, "Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}
        if self.site.supports_ranges:
            self.send_content(content, headers)
        else:
            self.send(200, content, headers)


@contextmanager
def serve(web: Web) -> Iterator[Web]:
    with serve_site(web, WebHandler):
        yield web
