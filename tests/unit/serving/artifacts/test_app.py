"""The artifact reader over HTTPS: a real process, certificate and tokens."""

from __future__ import annotations

import hashlib
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.serving.reader_process import Reader, serving
from tests.unit.serving.runs import ADAPTER, CHECKPOINT, RUN, write, write_checkpoint
from tests.unit.timeouts import TIMEOUT
from trainyard_crds.serving import FILES_PATH, LISTING_PATH, ArtifactListing

CONFIG = f"{FILES_PATH}{CHECKPOINT}/weights/adapter_config.json"
WEIGHTS = f"{FILES_PATH}{CHECKPOINT}/weights/adapter_model.safetensors"
CONTENT = ADAPTER["weights/adapter_model.safetensors"]
LARGE = f"{FILES_PATH}{CHECKPOINT}/weights/large.safetensors"
LARGE_CONTENT = bytes(range(256)) * 16384


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    claim = folder / "claim"
    write_checkpoint(claim, {**ADAPTER, "weights/large.safetensors": LARGE_CONTENT, "weights/empty.json": b""})
    write(claim / RUN, {"metrics.jsonl": b'{"step": 1}\n'})
    write(folder, {"secret": b"outside", "claim/secret": b"inside"})
    with serving(Reader(claim, folder / "secrets")) as process:
        yield process


def raw(reader: Reader, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Send a path without any normalisation by a client."""
    context = ssl.create_default_context(cafile=str(reader.authorities))
    connection = http.client.HTTPSConnection("127.0.0.1", reader.port, context=context, timeout=TIMEOUT)
    connection.request(method, path, headers={"Authorization": f"Bearer {reader.signer.token()}"})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def test_checkpoint_is_listed(reader: Reader) -> None:
    response = reader.get(f"{LISTING_PATH}{CHECKPOINT}")
    assert response.status_code == 200
    listing = ArtifactListing.model_validate_json(response.content)
    manifest = (reader.claim / CHECKPOINT / "manifest.json").read_bytes()
    assert listing.digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert listing.files["weights/adapter_model.safetensors"].bytes == len(CONTENT)


def test_whole_file(reader: Reader) -> None:
    response = reader.get(LARGE)
    assert (response.status_code, response.content) == (200, LARGE_CONTENT)
    assert response.headers["ETag"] == f'"{hashlib.sha256(LARGE_CONTENT).hexdigest()}"'
    assert response.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("requested", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-3000000", 100, 3000001),
        ("bytes=4194303-", 4194303, 4194304),
        ("bytes=-5", 4194299, 4194304),
        ("bytes=10-99999999", 10, 4194304),
    ],
)
def test_range(reader: Reader, requested: str, start: int, end: int) -> None:
    response = reader.get(LARGE, headers={"Range": requested})
    assert (response.status_code, response.content) == (206, LARGE_CONTENT[start:end])
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/4194304"


def test_range_outside_the_file(reader: Reader) -> None:
    response = reader.get(LARGE, headers={"Range": "bytes=4194304-"})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == "bytes */4194304"
    assert "which has 4194304 bytes" in response.json()["message"]


def test_empty_file_and_records_of_the_run(reader: Reader) -> None:
    assert reader.get(f"{FILES_PATH}{CHECKPOINT}/weights/empty.json").content == b""
    assert reader.get(f"{FILES_PATH}{RUN}/metrics.jsonl").content == b'{"step": 1}\n'
    manifest = (reader.claim / CHECKPOINT / "manifest.json").read_bytes()
    assert reader.get(f"{FILES_PATH}{CHECKPOINT}/manifest.json").content == manifest


@pytest.mark.parametrize(
    ("token", "code", "message"),
    [
        ("", 401, "Send a service account token as Bearer"),
        ("x", 401, "The token is not valid"),
        ("other", 403, "A token of namespace other does not permit reading in team"),
    ],
)
@pytest.mark.parametrize("path", [f"{LISTING_PATH}{CHECKPOINT}", CONFIG, "/", "/metrics", f"{FILES_PATH}secret"])
def test_nothing_is_answered_without_a_permitted_token(
    reader: Reader, path: str, token: str, code: int, message: str
) -> None:
    response = reader.get(path, reader.signer.token("other") if token == "other" else token)
    assert response.status_code == code
    assert message in response.json()["message"]
    assert ("WWW-Authenticate" in response.headers) == (code == 401)


@pytest.mark.parametrize(
    "path",
    [
        f"{FILES_PATH}{CHECKPOINT}/../../../../../secret",
        f"{FILES_PATH}{CHECKPOINT}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret",
        f"{FILES_PATH}{CHECKPOINT}/..%2f..%2f..%2f..%2f..%2fsecret",
        f"{FILES_PATH}{CHECKPOINT}/%252e%252e%252f%252e%252e%252fsecret",
        f"{FILES_PATH}{CHECKPOINT}/..%5c..%5csecret",
        f"{FILES_PATH}%2e%2e/secret",
        f"{FILES_PATH}../../secret",
        f"{FILES_PATH}/secret",
        f"{FILES_PATH}%2fetc%2fpasswd",
        f"{FILES_PATH}/etc/passwd",
        f"{FILES_PATH}secret",
        f"{FILES_PATH}secret%00{CHECKPOINT}/manifest.json",
        f"{FILES_PATH}{RUN}/metrics.jsonl%00",
        f"{LISTING_PATH}",
        f"{LISTING_PATH}..",
        f"{LISTING_PATH}%2e%2e",
        f"{LISTING_PATH}trainyard",
        f"{LISTING_PATH}{RUN}",
        "/v1/",
        "/",
        "//etc/passwd",
        "/v1/files",
    ],
)
def test_no_path_leads_to_other_files(reader: Reader, path: str) -> None:
    code, body = raw(reader, path)
    assert code in (400, 404)
    assert b"side" not in body
    assert b"root:" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD"])
def test_reader_only_reads(reader: Reader, method: str) -> None:
    assert raw(reader, CONFIG, method)[0] == 405


def test_reader_ends_by_itself_when_nothing_was_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "claim")
    with serving(Reader(tmp_path / "claim", tmp_path / "secrets", idle_seconds=0.1)) as reader:
        assert reader.process is not None
        assert reader.process.wait(TIMEOUT) == 0
    assert "nothing was read for a while" in (reader.folder / "log").read_text()


def test_reader_ends_at_sigterm(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "claim")
    with serving(Reader(tmp_path / "claim", tmp_path / "secrets")) as reader:
        assert reader.stop() == 0


def test_tokens_are_not_logged(reader: Reader) -> None:
    token = reader.signer.token("other")
    reader.get(CONFIG, token)
    log = (reader.folder / "log").read_text()
    assert "refused a request from 127.0.0.1: A token of namespace other" in log
    assert token not in log
