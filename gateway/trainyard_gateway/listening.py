"""Listening sockets for IPv4 and IPv6."""

from __future__ import annotations

import socket

from trainyard_gateway.errors import SettingsError

_BACKLOG = 1024


def listening_socket(host: str | None, port: int, variable: str) -> socket.socket:
    """Return a socket that listens on an address, or on every address of both families.

    Args:
        host: An IPv4 or IPv6 address, or a host name; None for every address.
        port: TCP port; 0 for a free one.
        variable: The variable that sets the port, for the error.

    Raises:
        SettingsError: the address or the port cannot be used.
    """
    try:
        if host is None:
            return _on_every_address(port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        shown = host or "every address,"
        raise SettingsError(f"{variable}: cannot listen on {shown} port {port}: {error.strerror}.") from error


def _on_every_address(port: int) -> socket.socket:
    """Return one socket for both families; on a machine without IPv6 one for IPv4."""
    if not _has_ipv6():
        return socket.create_server(("", port), backlog=_BACKLOG)
    return socket.create_server(("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)


def _has_ipv6() -> bool:
    """Return whether the kernel offers IPv6; a container image cannot know."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
