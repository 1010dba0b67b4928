"""Does a published port lead to somebody? Used after an edit of the load balancer.

With Docker's proxy a connect succeeds wherever a port is published, also where nothing listens behind it:
then it is reset, or ended. So a request is made, and anything that comes back counts. What speaks another
protocol than HTTP may end that connection without a word; it counts when it lets a silent one stand.
"""

from __future__ import annotations

import socket
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kecs\r\nConnection: close\r\n\r\n"
PATIENCE = 2.0
"""Seconds for an answer to the request."""
SILENCE = 1.0
"""Seconds for which a silent connection has to stand: the load balancer ends it in milliseconds when the node
refuses."""
AGAIN = 0.1
"""Seconds between two tries."""


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether somebody serves at the other end of the port; takes up to 3 s."""
    return _says_something(host, port) or _stands(host, port)


def wait(port: int, limit: float) -> bool:
    """Ask until it answers; False after `limit` seconds."""
    end = time.monotonic() + limit
    while not answers(port):
        if time.monotonic() >= end:
            return False
        time.sleep(AGAIN)
    return True


def _says_something(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), PATIENCE) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(REQUEST)
            return bool(sock.recv(1))
    except OSError:
        return False


def _stands(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), PATIENCE) as sock:
            sock.settimeout(SILENCE)
            return bool(sock.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False
