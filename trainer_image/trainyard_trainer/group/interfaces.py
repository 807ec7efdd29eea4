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
"""ioctl that returns an interface's IPv4 address (netdevice(7))."""
_REQUEST = "256s"
_ADDRESS = slice(20, 24)
_IPV6 = Path("/proc/net/if_inet6")


def interface_of(address: str) -> str | None:
    """Return the name of the interface with an IP address; None if there is none."""
    with suppress(ValueError):
        wanted = ipaddress.ip_address(address.partition("%")[0])
        return _of_ipv4(wanted.packed) if wanted.version == 4 else _of_ipv6(wanted.packed.hex())
    return None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free TCP port.

    Args:
        host: Address at which it is free; "" for all addresses.
    """
    with socket.socket() as server:
        server.bind((host, 0))
        port: int = server.getsockname()[1]
        return port


@contextmanager
def reserve_port(port: int) -> Iterator[None]:
    """Keep a free TCP port from being assigned to another socket; a server with SO_REUSEADDR can listen at it.

    Without the reservation, any outgoing connection of this machine may take the port before the server starts.

    Args:
        port: A free TCP port.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # already in use: the server that listens at it will report that
            reservation.bind(("", port))
        yield


def _of_ipv4(packed: bytes) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _number, name in socket.if_nameindex():
            with suppress(OSError):  # the interface has no IPv4 address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack(_REQUEST, name.encode()))
                if answer[_ADDRESS] == packed:
                    return name
    return None


def _of_ipv6(digits: str) -> str | None:
    lines = _IPV6.read_text(encoding="ascii").splitlines() if _IPV6.exists() else []
    fields_by_line = (line.split() for line in lines)
    return next((fields[-1] for fields in fields_by_line if fields[0] == digits), None)
