"""Downloads from the hub: told in percent, gone on with, checked, shared by several runs, and found in caches."""

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
    """So that a test knows which file a download is at."""
    monkeypatch.setattr(download, "_STREAMS", 1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hub_server.serve(Hub(FILES, LARGE)) as server:
        yield server


@pytest.fixture
def elsewhere(hub: Hub) -> Iterator[Web]:
    """Another host, where the hub sends those who ask for large files."""
    with web_server.serve(Web({f"/{name}?Signature=s3cret": FILES[name] for name in LARGE})) as server:
        hub.elsewhere = server.address
        yield server


def fetch(hub: Hub, cache: Path, shares: list[float] | None = None, poll: list[int] | None = None) -> Path:
    def polled() -> None:
        if poll is not None:
            poll.append(1)
            if len(poll) > LIMIT:
                raise StopRequested("Stopped on request.")

    told = shares if shares is not None else []
    access = Access(endpoint=hub.address, cache=cache, progress=told.append, sleep=lambda _seconds: None)
    memory = ResolvedMemory({"commit:model:org/tiny@main": COMMIT})
    return resolve_model(RunModelSource(source="hf://org/tiny"), memory, polled, access).path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


MODEL = {name: content for name, content in FILES.items() if name != "rows.jsonl"}
TOTAL = sum(map(len, MODEL.values()))
LIMIT = 12
"""Calls of a poll until it raises: some megabytes into the last file, when they come one after another."""


def test_percent_is_the_share_of_all_bytes(hub: Hub, tmp_path: Path) -> None:
    shares: list[float] = []
    assert contents(fetch(hub, tmp_path, shares)) == MODEL
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(shares) >= 9
    assert shares[0] == pytest.approx(100 * (1 << 20) / TOTAL, abs=1e-3) or shares[0] == pytest.approx(100 * 2 / TOTAL)


def test_a_file_of_rows_tells_percent_too(hub: Hub, tmp_path: Path) -> None:
    shares: list[float] = []
    access = Access(endpoint=hub.address, cache=tmp_path, progress=shares.append)
    memory = ResolvedMemory({"commit:dataset:org/rows@main": COMMIT})
    resolve_file("hf://org/rows/rows.jsonl", memory, lambda: None, access)
    assert shares == [100]


@pytest.mark.usefixtures("one_after_another")
def test_a_stopped_download_goes_on_with_the_byte_it_stopped_at(hub: Hub, tmp_path: Path) -> None:
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


def test_a_killed_download_is_gone_on_with_by_the_next_process(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, hub.address, str(tmp_path)]
    environ = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub-cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environ, check=False).returncode == -signal.SIGKILL
    sizes = {part.name: part.stat().st_size for part in tmp_path.rglob("*.part")}
    assert sum(sizes.values()) >= 1 << 20
    hub.ranges.clear()
    assert contents(fetch(hub, tmp_path)) == MODEL
    begins = {int(str(asked).removeprefix("bytes=").split("-")[0]) for asked in hub.ranges}
    wanted = {size for name, size in sizes.items() if size < len(FILES[name.removesuffix(".part")])}
    assert wanted <= begins
    assert wanted


def test_a_connection_that_breaks_costs_only_what_it_did_not_bring(hub: Hub, tmp_path: Path) -> None:
    fetch_listing(hub, tmp_path)
    hub.cuts, hub.cut_after, hub.sent = 4, 2 << 20, 0
    assert contents(fetch(hub, tmp_path)) == MODEL
    assert hub.cuts == 0
    assert hub.sent < TOTAL + (1 << 20)


def fetch_listing(hub: Hub, cache: Path) -> None:
    """So that what is asked next is content."""
    with pytest.raises(StopRequested):
        fetch(hub, cache, poll=[1] * LIMIT)
    for path in cache.iterdir():
        if path.is_dir() and path.name != "listings":
            shutil.rmtree(path)


def test_a_server_without_ranges_is_read_again_and_kept_whole(hub: Hub, elsewhere: Web, tmp_path: Path) -> None:
    with pytest.raises(StopRequested):
        fetch(hub, tmp_path, poll=[])
    elsewhere.knows_ranges = False
    assert contents(fetch(hub, tmp_path)) == MODEL


def test_files_arrive_at_the_same_time_and_the_first_error_ends_all() -> None:
    began = threading.Barrier(3)

    def fails(_check: Callable[[], None]) -> None:
        began.wait(TIMEOUT)
        raise SourceError("This file cannot be had.")

    def never_ends(check: Callable[[], None]) -> None:
        began.wait(TIMEOUT)
        while True:
            check()

    with pytest.raises(SourceError, match="This file cannot be had"):
        download._all_at_once([never_ends, fails, never_ends])


@pytest.mark.parametrize("name", ["config.json", LAST])
def test_what_arrives_with_another_content_is_not_kept(hub: Hub, tmp_path: Path, name: str) -> None:
    fetch_listing(hub, tmp_path)
    hub.files[name] = bytes(len(FILES[name]))
    with pytest.raises(SourceError, match=f"hf://org/tiny/{name} did not arrive as it was sent") as caught:
        fetch(hub, tmp_path)
    assert caught.value.exit_code == 69
    assert not list(tmp_path.rglob(f"{name}*"))
    hub.files[name] = FILES[name]
    assert contents(fetch(hub, tmp_path)) == MODEL


def test_what_arrives_too_long_is_not_kept(hub: Hub, elsewhere: Web, tmp_path: Path) -> None:
    elsewhere.knows_ranges = False
    elsewhere.files = {name: content + b"more" for name, content in elsewhere.files.items()}
    with pytest.raises(SourceError, match=r"hf://org/tiny/model-0000\d.* did not arrive as it was sent"):
        fetch(hub, tmp_path)


def test_a_file_that_never_arrives_whole_is_given_up_on(hub: Hub, tmp_path: Path) -> None:
    fetch_listing(hub, tmp_path)
    hub.cuts, hub.cut_after = 1000, 0
    with pytest.raises(SourceError, match="hf://org/tiny") as caught:
        fetch(hub, tmp_path)
    assert "hf_secret" not in str(caught.value) + repr(caught.value.__cause__)


def test_the_host_of_large_files_never_sees_the_token_and_nobody_its_signature(
    hub: Hub, elsewhere: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="trainyard_trainer")
    assert contents(fetch(hub, tmp_path)) == MODEL
    assert elsewhere.tokens == {None}
    for status, error in ((403, NotPermittedError), (404, SourceError), (500, SourceError)):
        elsewhere.status = status
        with pytest.raises(error) as caught:
            fetch(hub, tmp_path / str(status))
        said = caught.value.message + caught.value.advice + caplog.text
        assert "s3cret" not in said
        assert "hf_secret" not in said


def test_a_model_that_the_hubs_own_tools_fetched_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
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


def test_two_runs_that_share_a_cache_fetch_a_model_once(hub: Hub, tmp_path: Path) -> None:
    assert both(hub, tmp_path) == [MODEL, MODEL]
    assert hub.sent < TOTAL + 10_000


@pytest.mark.parametrize("round_", range(5))
def test_a_shared_volume_without_locks_gives_both_the_right_bytes(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_: int
) -> None:
    monkeypatch.setattr(download, "_locked", lambda _descriptor: True)
    assert both(hub, tmp_path / str(round_)) == [MODEL, MODEL]


def both(hub: Hub, cache: Path) -> list[dict[str, bytes]]:
    found: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(contents(fetch(hub, cache)))) for _ in range(2)]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
    return found


def test_a_cache_that_takes_nothing_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(StorageError, match=r"The download from hf://org/tiny/ could not be written to .*/file"):
        fetch(hub, tmp_path / "file")
