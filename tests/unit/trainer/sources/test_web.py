"""Dataset files from a web server: resuming, verification, errors."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.trainer.resolved import ResolvedMemory
from tests.unit.trainer.sources.web_server import Web, serve
from trainyard_trainer.errors import DataError, NotFoundError, NotPermittedError, SourceError, StopRequested
from trainyard_trainer.sources import remote_files
from trainyard_trainer.sources.download import Downloader
from trainyard_trainer.sources.remote_files import open_web
from trainyard_trainer.sources.resolve import Access, resolve_file

CONTENT = random.Random(0).randbytes(20 << 20)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    # The client's own tries, which wait in real time, come before ours.
    monkeypatch.setattr(remote_files, "_RETRY", {"max_retries": 0})
    with serve(Web({"/data/rows%20one.jsonl": CONTENT})) as server:
        yield server


def fetch(web: Web, cache: Path, sha256: str | None = None, name: str = "data/rows one.jsonl") -> Path:
    url = f"{web.address}/{name}"
    return resolve_file(url, ResolvedMemory(), lambda: None, Access(cache=cache), sha256=sha256).path


def downloader(cache: Path, slept: list[float] | None = None) -> Downloader:
    record = slept if slept is not None else []
    return Downloader(cache=cache, poll=lambda: None, progress=lambda _share: None, sleep=record.append)


def test_file_is_fetched_in_parts_once(web: Web, tmp_path: Path) -> None:
    path = fetch(web, tmp_path, DIGEST)
    assert path.name == "rows one.jsonl"
    assert path.read_bytes() == CONTENT
    assert web.ranges == ["bytes=0-16777215", "bytes=16777216-20971519"]
    assert fetch(web, tmp_path) == path
    assert len(web.ranges) == 2


def test_changed_file_is_fetched_again(web: Web, tmp_path: Path) -> None:
    first = fetch(web, tmp_path)
    web.files["/data/rows%20one.jsonl"] = b"other"
    second = fetch(web, tmp_path)
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"other")


def test_killed_download_resumes(web: Web, tmp_path: Path) -> None:
    path = fetch(web, tmp_path)
    path.rename(path.with_name(f"{path.name}.part"))
    with path.with_name(f"{path.name}.part").open("r+b") as part:
        part.truncate(5000)
    web.ranges.clear()
    assert fetch(web, tmp_path, DIGEST).read_bytes() == CONTENT
    assert web.ranges[0] is not None
    assert web.ranges[0].startswith("bytes=5000-")


def test_repeated_disconnects_keep_received_bytes(web: Web, tmp_path: Path) -> None:
    remote, key = open_web(f"{web.address}/data/rows%20one.jsonl")
    web.cuts, web.cut_after = 12, 3 << 20
    assert downloader(tmp_path).fetch(remote, remote.look_up(key), DIGEST).read_bytes() == CONTENT
    assert web.cuts < 12


def test_unreachable_server_fails_after_backoff(web: Web, tmp_path: Path) -> None:
    remote, key = open_web(f"{web.address}/data/rows%20one.jsonl")
    file, slept = remote.look_up(key), list[float]()
    web.cuts, web.cut_after = 1000, 0
    with pytest.raises(SourceError, match=r"rows one\.jsonl cannot be reached"):
        downloader(tmp_path, slept).fetch(remote, file)
    assert sum(slept) == pytest.approx(31)


def test_content_with_another_digest_is_removed(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has the SHA-256 {DIGEST}, not {'0' * 64}"):
        fetch(web, tmp_path, "0" * 64)
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [(404, NotFoundError, "There is no http"), (403, NotPermittedError, "does not permit access to http")],
)
def test_http_errors(web: Web, tmp_path: Path, status: int, error: type[Exception], sentence: str) -> None:
    web.status = status
    with pytest.raises(error, match=sentence):
        fetch(web, tmp_path)


def test_stop_request_keeps_received_bytes(web: Web, tmp_path: Path) -> None:
    remote, key = open_web(f"{web.address}/data/rows%20one.jsonl")
    shares: list[float] = []

    def poll() -> None:
        if len(shares) == 3:
            raise StopRequested("Stopped on request.")

    with pytest.raises(StopRequested):
        Downloader(cache=tmp_path, poll=poll, progress=shares.append).fetch(remote, remote.look_up(key))
    assert shares == sorted(shares)
    [part] = tmp_path.rglob("*.part")
    assert CONTENT.startswith(part.read_bytes())
    assert part.stat().st_size > 1 << 20
