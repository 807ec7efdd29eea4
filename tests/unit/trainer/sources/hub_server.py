"""A hub on loopback with one model and one dataset repository."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.unit.trainer.sources.loopback import Handler, Site, serve_site

COMMIT = "c" * 40


class Hub(Site):
    """`files` are served as models/org/tiny and datasets/org/rows; `refuse` is a status and error code.

    Files in `large` have a SHA-256; requests for them are redirected to `elsewhere`, if it is set.
    """

    def __init__(self, files: Mapping[str, bytes], large: Mapping[str, str] = {}) -> None:
        super().__init__()
        self.files = dict(files)
        self.large = dict(large)
        """SHA-256 by name."""
        self.elsewhere: str | None = None
        self.commit = COMMIT
        self.refuse: tuple[int, str] | None = None
        self.requests: list[tuple[str, str, str | None]] = []

    def entry(self, name: str) -> dict[str, object]:
        content = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": blob}
        if name in self.large:
            entry["lfs"] = {"oid": self.large[name], "size": len(content), "pointerSize": 134}
        return entry


class HubHandler(Handler[Hub]):
    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.site.requests.append((self.command, path, self.headers.get("Authorization")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.site.refuse is not None:
            status, code = self.site.refuse
            return self.send(status, b"{}", {"X-Error-Code": code} if code else {})
        for kind, repository in (("models", "org/tiny"), ("datasets", "org/rows")):
            prefix = "" if kind == "models" else "datasets/"
            if path.startswith(f"/api/{kind}/{repository}"):
                return self._api(path.removeprefix(f"/api/{kind}/{repository}"), body)
            if path.startswith(f"/{prefix}{repository}/resolve/"):
                return self._file(path.removeprefix(f"/{prefix}{repository}/resolve/").split("/", 1))
        return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _api(self, rest: str, body: str) -> None:
        if rest.startswith("/tree/"):
            return self._json([self.site.entry(name) for name in self.site.files])
        if rest.startswith("/paths-info/"):
            names = parse_qs(body)["paths"]
            return self._json([self.site.entry(name) for name in names if name in self.site.files])
        if rest not in ("", "/revision/main", "/revision/v1", f"/revision/{self.site.commit}"):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return self._json({"id": "org/tiny", "sha": self.site.commit, "siblings": []})

    def _json(self, document: object) -> None:
        self.send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, parts: list[str]) -> None:
        content = self.site.files.get(parts[1])
        if content is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        if parts[1] in self.site.large and self.site.elsewhere is not None:
            return self.send(302, b"", {"Location": f"{self.site.elsewhere}/{parts[1]}?Signature=s3cret"})
        tag = hashlib.sha1(content).hexdigest()
        return self.send_content(content, {"X-Repo-Commit": parts[0], "ETag": f'"{tag}"'})


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    with serve_site(hub, HubHandler):
        yield hub
