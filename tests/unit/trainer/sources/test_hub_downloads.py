"""Downloads from the hub: progress, resuming, verification, sharing between jobs, caches."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import huggingface_hub
import pytest

from tests.unit.timeouts import TIMEOUT
from tests.unit.trainer.resolved import ResolvedMemory
from tests.unit.trainer.sources import hub_server, web_server
from tests.unit.trainer.sources.hub_server import COMMIT, Hub
from tests.unit.trainer.sources.web_server import Web
from trainyard_crds.runconfig import RunModelSource
from trainyard_trainer.errors import NotPermittedError, SourceError, StopRequested, StorageError
from trainyard_trainer.sources import download
from trainyard_trainer.sources.resolve import Access, resolve_file, resolve_model

WEIGHTS = random.Random(0).randbytes(9 << 20)
FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": WEIGHTS[: 4 << 20],
    "model-00002-of-00002.safetensors": WEIGHTS[4 << 20 :],
    "rows.jsonl": b'{"text": "x"}\n',
}
LARGE = {name: hashlib.sha256(FILES[name]).hexdigest() for name in FILES if name.endswith(".safetensors")}
LAST = "model-00002-of-00002.safetensors"


@pytest.fixture
def one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Download files sequentially, so that a test knows the current file."""
    monkeypatch.setattr(download, "_STREAMS", 1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hub_server.serve(Hub(FILES, LARGE)) as server:
        yield server


@pytest.fixture
def elsewhere(hub: Hub) -> Iterator[Web]:
    """Another host, to which the hub redirects requests for large files."""
    with web_server.serve(Web({f"/{name}?Signature=s3cret": FILES[name] for name in LARGE})) as server:
        hub.elsewhere = server.address
        yield server


def fetch(hub: Hub, cache: Path, shares: list[float] | None = None, poll: list[int] | None = None) -> Path:
    def polled() -> None:
        if poll is not None:
            poll.append(1)
            if len(poll) > LIMIT:
                raise StopRequested("Stopped on request.")

    reported = shares if shares is not None else []
    access = Access(endpoint=hub.address, cache=cache, progress=reported.append, sleep=lambda _seconds: None)
    memory = ResolvedMemory({"commit:model:org/tiny@main": COMMIT})
    return resolve_model(RunModelSource(source="hf://org/tiny"), memory, polled, access).path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


MODEL = {name: content for name, content in FILES.items() if name != "rows.jsonl"}
TOTAL = sum(map(len, MODEL.values()))
LIMIT = 12
"""Polls before a stop: within the last file of a sequential download."""


def test_progress_is_the_percentage_of_all_bytes(hub: Hub, tmp_path: Path) -> None:
    shares: list[float] = []
    assert contents(fetch(hub, tmp_path, shares)) == MODEL
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(shares) >= 9
    assert shares[0] == pytest.approx(100 * (1 << 20) / TOTAL, abs=1e-3) or shares[0] == pytest.approx(100 * 2 / TOTAL)


def test_dataset_file_reports_progress(hub: Hub, tmp_path: Path) -> None:
    shares: list[float] = []
    access = Access(endpoint=hub.address, cache=tmp_path, progress=shares.append)
    memory = ResolvedMemory({"commit:dataset:org/rows@main": COMMIT})
    resolve_file("hf://org/rows/rows.jsonl", memory, lambda: None, access)
    assert shares == [100]


@pytest.mark.usefixtures("one_after_another")
def test_stopped_download_resumes_at_its_offset(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(StopRequested):
        fetch(hub, tmp_path, poll=[])
    [part] = tmp_path.rglob("*.part")
    size = part.stat().st_size
    assert part.name == f"{LAST}.part"
    assert 0 < size < len(FILES[LAST])
    hub.ranges.clear()
    shares: list[float] = []
    assert contents(fetch(hub, tmp_path, shares)) == MODEL
    assert hub.ranges == [f"bytes={size}-{len(FILES[LAST]) - 1}"]
    assert pytest.approx(100 * (len(MODEL["config.json"]) + (4 << 20) + size) / TOTAL) in shares[:3]


KILLED = """
import os, signal, sys
from pathlib import Path
from trainyard_trainer.sources.download import Downloader
from trainyard_trainer.sources.hub import HubRepository
from trainyard_trainer.sources.hub_files import fetch_model

def poll():
    for part in Path(sys.argv[2]).rglob("model-*.part"):
        if 1 << 20 <= part.stat().st_size < 4 << 20:
            os.kill(os.getpid(), signal.SIGKILL)

repository = HubRepository(kind="model", name="org/tiny", endpoint=sys.argv[1])
fetch_model(repository, "c" * 40, Downloader(cache=Path(sys.argv[2]), poll=poll, progress=lambda _share: None))
"""


def test_next_process_resumes_a_killed_download(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, hub.address, str(tmp_path)]
    environ = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub-cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environ, check=False).returncode == -signal.SIGKILL
    sizes = {part.name: part.stat().st_size for part in tmp_path.rglob("*.part")}
    assert sum(sizes.values()) >= 1 << 20
    hub.ranges.clear()
    assert contents(fetch(hub, tmp_path)) == MODEL
    begins = {int(str(requested).removeprefix("bytes=").split("-")[0]) for requested in hub.ranges}
    wanted = {size for name, size in sizes.items() if size < len(FILES[name.removesuffix(".part")])}
    assert wanted <= begins
    assert wanted


def test_broken_connection_keeps_received_bytes(hub: Hub, tmp_path: Path) -> None:
    fetch_listing(hub, tmp_path)
    hub.cuts, hub.cut_after, hub.sent = 4, 2 << 20, 0
    assert contents(fetch(hub, tmp_path)) == MODEL
    assert hub.cuts == 0
    assert hub.sent < TOTAL + (1 << 20)


def fetch_listing(hub: Hub, cache: Path) -> None:
    """Fill the cache of listings, so that the next requests are for content."""
    with pytest.raises(StopRequested):
        fetch(hub, cache, poll=[1] * LIMIT)
    for path in cache.iterdir():
        if path.is_dir() and path.name != "listings":
            shutil.rmtree(path)


def test_server_without_ranges_is_read_from_the_start(hub: Hub, elsewhere: Web, tmp_path: Path) -> None:
    with pytest.raises(StopRequested):
        fetch(hub, tmp_path, poll=[])
    elsewhere.supports_ranges = False
    assert contents(fetch(hub, tmp_path)) == MODEL


def test_first_error_cancels_concurrent_downloads() -> None:
    began = threading.Barrier(3)

    def fails(_check: Callable[[], None]) -> None:
        began.wait(TIMEOUT)
        raise SourceError("This file cannot be downloaded.")

    def never_ends(check: Callable[[], None]) -> None:
        began.wait(TIMEOUT)
        while True:
            check()

    with pytest.raises(SourceError, match="This file cannot be downloaded"):
        download._run_concurrently([never_ends, fails, never_ends])


@pytest.mark.parametrize("name", ["config.json", LAST])
def test_corrupt_content_is_removed(hub: Hub, tmp_path: Path, name: str) -> None:
    fetch_listing(hub, tmp_path)
    hub.files[name] = bytes(len(FILES[name]))
    with pytest.raises(SourceError, match=f"hf://org/tiny/{name} was corrupted during the download") as caught:
        fetch(hub, tmp_path)
    assert caught.value.exit_code == 69
    assert not list(tmp_path.rglob(f"{name}*"))
    hub.files[name] = FILES[name]
    assert contents(fetch(hub, tmp_path)) == MODEL


def test_too_long_content_is_removed(hub: Hub, elsewhere: Web, tmp_path: Path) -> None:
    elsewhere.supports_ranges = False
    elsewhere.files = {name: content + b"more" for name, content in elsewhere.files.items()}
    with pytest.raises(SourceError, match=r"hf://org/tiny/model-0000\d.* was corrupted during the download"):
        fetch(hub, tmp_path)


def test_download_without_progress_fails_after_retries(hub: Hub, tmp_path: Path) -> None:
    fetch_listing(hub, tmp_path)
    hub.cuts, hub.cut_after = 1000, 0
    with pytest.raises(SourceError, match="hf://org/tiny") as caught:
        fetch(hub, tmp_path)
    assert "hf_secret" not in str(caught.value) + repr(caught.value.__cause__)


def test_redirect_drops_the_token_and_errors_hide_the_signature(
    hub: Hub, elsewhere: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="trainyard_trainer")
    assert contents(fetch(hub, tmp_path)) == MODEL
    assert elsewhere.tokens == {None}
    for status, error in ((403, NotPermittedError), (404, SourceError), (500, SourceError)):
        elsewhere.status = status
        with pytest.raises(error) as caught:
            fetch(hub, tmp_path / str(status))
        text = caught.value.message + caught.value.advice + caplog.text
        assert "s3cret" not in text
        assert "hf_secret" not in text


def test_model_in_the_hub_cache_is_used(hub: Hub, tmp_path: Path) -> None:
    fetch_listing(hub, tmp_path)
    snapshot = tmp_path / "hub-cache/models--org--tiny/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, content in MODEL.items():
        (snapshot / name).write_bytes(content)
    hub.sent = 0
    assert fetch(hub, tmp_path) == snapshot
    assert hub.sent == 0
    (snapshot / LAST).write_bytes(b"part")
    assert contents(fetch(hub, tmp_path)) == MODEL


def test_runs_that_share_a_cache_fetch_a_model_once(hub: Hub, tmp_path: Path) -> None:
    assert both(hub, tmp_path) == [MODEL, MODEL]
    assert hub.sent < TOTAL + 10_000


@pytest.mark.parametrize("round_", range(5))
def test_shared_cache_without_locks_has_the_right_bytes(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_: int
) -> None:
    monkeypatch.setattr(download, "_try_lock", lambda _descriptor: True)
    assert both(hub, tmp_path / str(round_)) == [MODEL, MODEL]


def both(hub: Hub, cache: Path) -> list[dict[str, bytes]]:
    found: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(contents(fetch(hub, cache)))) for _ in range(2)]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
    return found


def test_unwritable_cache_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(StorageError, match=r"The download from hf://org/tiny/ could not be written to .*/file"):
        fetch(hub, tmp_path / "file")
