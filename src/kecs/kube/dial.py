"""A connection to an API server, ready for one HTTP/1.1 request: TCP (or an HTTP proxy's CONNECT), then TLS.

Synchronous, for a worker thread, with one deadline for everything; called by `kecs.kube.upgrade`.
"""

from __future__ import annotations

import socket
import time

import h11

from kecs.kube import sockets
from kecs.kube.access import Access
from kecs.kube.errors import Unreachable
from kecs.kube.proxy import Proxy
from kecs.kube.tls import TlsSocket

Connected = socket.socket | TlsSocket
"""With TLS or without."""

_READ = 65536


class Deadline:
    """Until when something may take; gives sockets what is left."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises `TimeoutError` when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def part(self, share: float) -> Deadline:
        """Return an earlier one, after this share of the time that is left. Raises `TimeoutError`."""
        return Deadline(self.left() * share)


def connect(access: Access, deadline: Deadline) -> Connected:
    """Return a connected socket, in TLS where the server's URL is https; its time-out is the time left.

    Raises `OSError` (of which TLS's errors and time-outs are), `Unreachable`, `NoCredentials`. The resolver
    cannot be given a deadline: a name may take longer than that, as long as /etc/resolv.conf says.
    """
    tls = access.ssl_context()
    if access.proxy is None:
        sock = _tcp(access.host, access.port, deadline)
    else:
        sock = _through_proxy(access, access.proxy, deadline)
    try:
        sockets.prepare(sock)
        if tls is None:
            return sock
        sock.settimeout(deadline.left())
        secured = TlsSocket(sock, tls, access.server_hostname)
        secured.handshake()
    except BaseException:
        sock.close()
        raise
    return secured


def send(sock: Connected, data: bytes, deadline: Deadline) -> None:
    """Send all of `data` in time."""
    sock.settimeout(deadline.left())
    sock.sendall(data)


def next_event(sock: Connected, http: h11.Connection, deadline: Deadline) -> object:
    """Read until `http` has an event and return it. Raises `ConnectionResetError` when nothing came."""
    while (event := http.next_event()) is h11.NEED_DATA:
        sock.settimeout(deadline.left())
        data = sock.recv(_READ)
        if not data and http.their_state is h11.SEND_RESPONSE:
            raise ConnectionResetError("it closed the connection without an answer")
        http.receive_data(data)
    return event


def _tcp(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Try each address of `host`, each for its share of the time that is left."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left() / (len(addresses) - index))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError("no address")


def _through_proxy(access: Access, proxy: Proxy, deadline: Deadline) -> socket.socket:
    """Have the proxy connect to the server (RFC 9110, 9.3.6)."""
    try:
        sock = _tcp(proxy.host, proxy.port, deadline)
    except OSError as error:
        raise Unreachable(
            f"the proxy {proxy.host}:{proxy.port} cannot be reached: {error.strerror or error}",
            f"see {proxy.source}",
        ) from error
    try:
        http = h11.Connection(h11.CLIENT)
        name = f"[{access.host}]" if ":" in access.host else access.host
        target = f"{name}:{access.port}"
        login = [("Proxy-Authorization", proxy.authorization)] if proxy.authorization else []
        headers = [("Host", target), *login]
        send(sock, http.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b"", deadline)
        send(sock, http.send(h11.EndOfMessage()) or b"", deadline)
        answer = next_event(sock, http, deadline)
        while isinstance(answer, h11.InformationalResponse):
            answer = next_event(sock, http, deadline)
    except BaseException:
        sock.close()
        raise
    if isinstance(answer, h11.Response) and answer.status_code // 100 == 2:
        return sock
    sock.close()
    status = answer.status_code if isinstance(answer, h11.Response) else "nothing"
    raise Unreachable(
        f"the proxy {proxy.host}:{proxy.port} does not connect to {target}: it answered {status}",
        f"see {proxy.source}",
    )
