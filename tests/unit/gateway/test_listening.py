"""The ports of the gateway accept connections over IPv4 and IPv6."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from tests.unit.certificates import write_pair
from trainyard_gateway import listening
from trainyard_gateway.errors import SettingsError
from trainyard_gateway.listening import listening_socket
from trainyard_gateway.main import serve
from trainyard_gateway.settings import Settings

LOOPBACK = ("127.0.0.1", "::1")


def is_reachable(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in opened]
    for each in opened:
        each.close()
    return ports


def test_socket_without_a_host_accepts_both_families() -> None:
    with listening_socket(None, 0, "TRAINYARD_PORT") as opened:
        assert [is_reachable(address, opened.getsockname()[1]) for address in LOOPBACK] == [True, True]


@pytest.mark.parametrize("address", LOOPBACK)
def test_socket_with_a_host_accepts_only_its_family(address: str) -> None:
    with listening_socket(address, 0, "TRAINYARD_PORT") as opened:
        port = opened.getsockname()[1]
        assert [is_reachable(each, port) for each in LOOPBACK] == [each == address for each in LOOPBACK]


def test_machine_without_ipv6_gets_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_has_ipv6", lambda: False)
    with listening_socket(None, 0, "TRAINYARD_PORT") as opened:
        assert opened.family is socket.AF_INET
        assert is_reachable("127.0.0.1", opened.getsockname()[1])


def test_port_in_use_on_every_address_is_a_sentence() -> None:
    with listening_socket(None, 0, "TRAINYARD_PORT") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=f"TRAINYARD_PORT: cannot listen on every address, port {port}: Address"
        ):
            listening_socket(None, port, "TRAINYARD_PORT")


def test_intake_api_and_health_port_answer_on_ipv4_and_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, "gateway")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        '{"apiVersion": "v1", "kind": "Config", "current-context": "c",'
        ' "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],'
        ' "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}'
    )
    intake, api, health = free_ports(3)
    for name, port in (("PORT", intake), ("API_PORT", api), ("HEALTH_PORT", health)):
        monkeypatch.setenv(f"TRAINYARD_{name}", str(port))
    monkeypatch.setenv("TRAINYARD_TLS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    asyncio.run(asyncio.wait_for(_check([(intake, True), (api, True), (health, False)]), 30))


async def _check(ports: list[tuple[int, bool]]) -> None:
    """Run the gateway and request /healthz of every port over both families."""
    serving = asyncio.create_task(serve(Settings()))
    try:
        statuses = {
            (port, address): await _status(address, port, tls=tls) for port, tls in ports for address in LOOPBACK
        }
        assert all(line.startswith("HTTP/1.1 ") for line in statuses.values()), statuses
        assert len(statuses) == 6
    finally:
        serving.cancel()
        await asyncio.wait([serving])


async def _status(address: str, port: int, *, tls: bool) -> str:
    """Return the status line of /healthz; the port may not be open yet."""
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    while True:
        try:
            reader, writer = await asyncio.open_connection(address, port, ssl=context)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
            continue
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line.decode()
