"""HTTP servers on loopback that support ranges and can close a connection in the middle of a file."""

import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Generic, TypeVar


class Site:
    """State of a server; the next `cuts` responses end after `cut_after` bytes."""

    def __init__(self) -> None:
        self.address = ""
        self.cuts = 0
        self.cut_after = 0
        self._lock = threading.Lock()
        self.ranges: list[str | None] = []
        """The Range header of every GET of content."""
        self.sent = 0

    def is_cut(self) -> bool:
        """Whether this response ends early."""
        with self._lock:
            if self.cuts == 0:
                return False
            self.cuts -= 1
            return True


S = TypeVar("S", bound=Site)


class Handler(BaseHTTPRequestHandler, Generic[S]):
    """Handles GET, HEAD and POST with `answer`."""

    protocol_version = "HTTP/1.1"
    site: S

    def answer(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def log_message(self, *_arguments: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> None:
        """Send a response."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.site.is_cut():
            body = body[: self.site.cut_after]
            self.wfile.write(body)
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(body)
        self.site.sent += len(body)

    def send_content(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Send a file, or the requested range of it."""
        requested = self.headers.get("Range")
        if self.command == "GET":
            self.site.ranges.append(requested)
        if (wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", requested or "")) is None:
            self.send(200, content, headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        part = {"Content-Range": f"bytes {first}-{last}/{len(content)}", **headers}
        self.send(206, content[first : last + 1], part)


class Server(ThreadingHTTPServer):
    """Ignores clients that disconnect during a response."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve_site(site: S, handler: type[Handler[S]], certificate: tuple[Path, Path] | None = None) -> Iterator[S]:
    """Serve a site, over TLS with a certificate and its key."""
    server = Server(("127.0.0.1", 0), type("BoundHandler", (handler,), {"site": site}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    scheme = "http" if certificate is None else "https"
    site.address = f"{scheme}://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
