"""A hub on loopback: what the real client asks of it for one model and one dataset repository."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c" * 40


class Hub:
    """`files` are served as models/org/tiny and datasets/org/rows; `refuse` is a status and an error code for all."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.commit = COMMIT
        self.refuse: tuple[int, str] | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        self.endpoint = ""
        self.sent = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_arguments: object) -> None:
        pass

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path, self.headers.get("Authorization")))
        if self.hub.refuse is not None:
            status, code = self.hub.refuse
            return self._send(status, b"{}", {"X-Error-Code": code} if code else {})
        for kind, repository in (("models", "org/tiny"), ("datasets", "org/rows")):
            prefix = "" if kind == "models" else "datasets/"
            if path.startswith(f"/api/{kind}/{repository}"):
                return self._api(path.removeprefix(f"/api/{kind}/{repository}"))
            if path.startswith(f"/{prefix}{repository}/resolve/"):
                return self._file(path.removeprefix(f"/{prefix}{repository}/resolve/").split("/", 1))
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _api(self, rest: str) -> None:
        if rest.startswith("/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.hub.files.items()
            ]
            return self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        if rest not in ("", "/revision/main", "/revision/v1", f"/revision/{self.hub.commit}"):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return self._send(200, json.dumps({"id": "org/tiny", "sha": self.hub.commit, "siblings": []}).encode())

    def _file(self, parts: list[str]) -> None:
        content = self.hub.files.get(parts[1])
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": parts[0], "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or ""):
            first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
            part = {"Content-Range": f"bytes {first}-{last}/{len(content)}", **headers}
            return self._send(206, content[first : last + 1], part)
        return self._send(200, content, headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.hub.sent += len(body)
            self.wfile.write(body)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
