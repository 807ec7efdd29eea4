from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.certificates import write_pair
from trainyard_gateway.main import main

UNREACHABLE = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "c",
}


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    write_pair(tmp_path, "gateway")
    (tmp_path / "kubeconfig").write_text(json.dumps(UNREACHABLE))
    monkeypatch.setenv("TRAINYARD_TLS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("TRAINYARD_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return monkeypatch


def misconfiguration(capsys: pytest.CaptureFixture[str]) -> str:
    """Run the gateway and return the sentence it exits with."""
    assert main() == 78
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_invalid_setting_exits_with_a_sentence(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("TRAINYARD_PORT", "https")
    assert misconfiguration(capsys) == "trainyard-gateway: TRAINYARD_PORT is 'https'; set a TCP port from 1 to 65535.\n"


def test_missing_certificate_exits_with_a_sentence(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environment.setenv("TRAINYARD_TLS_DIRECTORY", str(tmp_path / "none"))
    assert "cannot be used: [Errno 2]" in misconfiguration(capsys)


@pytest.mark.parametrize("text", [None, "a: [", "{}"])
def test_unusable_kubeconfig_exits_with_a_sentence(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "other"
    if text is not None:
        path.write_text(text)
    environment.setenv("KUBECONFIG", str(path))
    assert "The API server cannot be reached" in misconfiguration(capsys)


def test_port_in_use_exits_with_a_sentence(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment.setenv("TRAINYARD_PORT", str(port))
        assert f"TRAINYARD_PORT: cannot listen on 127.0.0.1 port {port}: Address already in use" in misconfiguration(
            capsys
        )
