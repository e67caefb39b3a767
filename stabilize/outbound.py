"""Connections to addresses that users name: resolved once, checked, and connected to as checked.

Without the check a URL could reach what only this machine may reach: services on loopback, in the
private network, the metadata service of a cloud. Names are resolved here and the connection goes
to the very address that was checked, so that a second answer of the name server changes nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from stabilize.errors import PermanentError

Address = tuple[socket.AddressFamily, Any]


class ForbiddenAddress(PermanentError):
    """The URL leads to an address that may not be reached from here, or is no such URL."""

    code = 110


def is_public(address: str) -> bool:
    """Say whether an IP address is one that anybody on the internet may reach."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # an IPv4 address behind a translator
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


def resolve(host: str, port: int, *, allow_private: bool = False) -> list[Address]:
    """The addresses of `host`; `ForbiddenAddress` if one of them is not public."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(family, where) for family, _, _, _, where in found]
    if not allow_private:
        for _, where in addresses:
            if not is_public(str(where[0])):
                raise ForbiddenAddress(
                    f"{host} is at {where[0]}, which is not a public address: allow private "
                    "addresses if that is meant"
                )
    return addresses


def connect(host: str, port: int, timeout: float, *, allow_private: bool = False) -> socket.socket:
    """Connect to the first address of `host` that answers; `timeout` in seconds for each."""
    error: OSError | None = None
    for family, where in resolve(host, port, allow_private=allow_private):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(where)
        except OSError as failed:
            sock.close()
            error = failed
        else:
            return sock
    raise error or OSError(f"{host} has no address")


class _Http(http.client.HTTPConnection):
    allow_private = False
    context: ssl.SSLContext | None = None

    def connect(self) -> None:
        self.sock = connect(
            self.host, self.port, self.timeout or 30.0, allow_private=self.allow_private
        )
        if self.context is not None:
            self.sock = self.context.wrap_socket(self.sock, server_hostname=self.host)


def http_connection(
    url: str, timeout: float, *, allow_private: bool = False
) -> tuple[http.client.HTTPConnection, str]:
    """A connection for `url`, not open yet, and the target to request on it.

    Follows no redirect and uses no proxy. `ForbiddenAddress` for another scheme than
    http(s).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ForbiddenAddress(f"{parts.scheme or 'no scheme'}: only http and https are called")
    secure = parts.scheme == "https"
    connection = _Http(parts.hostname, parts.port or (443 if secure else 80), timeout=timeout)
    connection.allow_private = allow_private
    if secure:
        connection.context = ssl.create_default_context()
    target = parts.path or "/"
    return connection, f"{target}?{parts.query}" if parts.query else target


def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    timeout: float,
    allow_private: bool = False,
) -> tuple[int, http.client.HTTPMessage]:
    """Send one request; return status and headers of the answer, which comes within `timeout`."""
    connection, target = http_connection(url, timeout, allow_private=allow_private)
    # the socket's own timeout is for each read; an endpoint that drips would outlast it
    watchdog = threading.Timer(timeout, _cut, [connection])
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.headers
    finally:
        watchdog.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection) -> None:
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
