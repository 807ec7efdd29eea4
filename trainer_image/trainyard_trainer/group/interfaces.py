"""Network interfaces and ports of this machine."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SIOCGIFADDR = 0x8915
"""Asks Linux for an interface's IPv4 address (netdevice(7))."""
_REQUEST = "256s"
_ADDRESS = slice(20, 24)
_IPV6 = Path("/proc/net/if_inet6")


def interface_of(address: str) -> str | None:
    """The name of the interface that has an IP address; None where there is none."""
    with suppress(ValueError):
        wanted = ipaddress.ip_address(address.partition("%")[0])
        return _of_ipv4(wanted.packed) if wanted.version == 4 else _of_ipv6(wanted.packed.hex())
    return None


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on.

    Args:
        host: Address it is free at; "" for all.
    """
    with socket.socket() as server:
        server.bind((host, 0))
        port: int = server.getsockname()[1]
        return port


@contextmanager
def reserve_port(port: int) -> Iterator[None]:
    """Let nobody else be given a TCP port; a server that reuses addresses, as servers do, can listen at it.

    Without it any connection of this machine may take the port before the one it is meant for has started.

    Args:
        port: One that nobody listens on.
    """
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # it is taken already, which who is to listen at it will tell
            holding.bind(("", port))
        yield


def _of_ipv4(packed: bytes) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _number, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack(_REQUEST, name.encode()))
                if answer[_ADDRESS] == packed:
                    return name
    return None


def _of_ipv6(digits: str) -> str | None:
    lines = _IPV6.read_text(encoding="ascii").splitlines() if _IPV6.exists() else []
    return next((words[-1] for words in map(str.split, lines) if words[0] == digits), None)
