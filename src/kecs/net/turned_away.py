"""What a client is told whose name leads nowhere, in the language that it speaks. No I/O.

`kecs.net.front` sends it and closes. The names that there are, are told only to one that asked for a name of
this machine: a page of the web whose own name was made to lead here (DNS rebinding) may read the answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kecs.net.greeting import LIMIT, Asked, Speech

MOST = 200
"""Names that are listed, at most."""

_UNRECOGNIZED_NAME = bytes((21, 3, 3, 0, 2, 2, 112))
"""A fatal alert (RFC 8446, 6; RFC 6066, 3)."""

_HTTP_1_1_REQUIRED = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + bytes(
    (0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13)
)
"""An empty SETTINGS frame and a GOAWAY (RFC 9113, 6.5, 6.8 and 7)."""


def answer(asked: Asked, names: Iterable[str], port: int) -> bytes:
    """Return what to say to who asked for none of `names`, which are served on `port`; may be nothing."""
    if asked.speech is Speech.TLS:
        return _UNRECOGNIZED_NAME
    if asked.speech is Speech.HTTP2:
        return _HTTP_1_1_REQUIRED
    if asked.speech is Speech.UNKNOWN:
        return b""
    if asked.too_long:
        return _http("431 Request Header Fields Too Large", f"No `Host` in the first {LIMIT} bytes.\n", asked)
    if asked.host is None:
        return _http("400 Bad Request", "The request has no `Host`.\n\n" + _listed(names, port), asked)
    said = f"No service is called `{asked.host}` here.\n"
    return _http("404 Not Found", said + ("\n" + _listed(names, port) if is_local(asked.host) else ""), asked)


def too_slow(speech: Speech) -> bytes:
    """Return what to say to who did not say in time what it wants."""
    return _http("408 Request Timeout", "The request took too long.\n") if speech is Speech.HTTP else b""


def is_local(host: str) -> bool:
    """Tell whether `host` is a name of this machine that nobody else can give away (RFC 6761, 6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(names: Iterable[str], port: int) -> str:
    known = sorted(names)
    if not known:
        return "No service is public: a name leads to one whose `assignPublicIp` is ENABLED.\n"
    lines = [f"  http://{name}:{port}/" for name in known[:MOST]]
    if len(known) > MOST:
        lines.append(f"  and {len(known) - MOST} more")
    return "\n".join(["Names that lead somewhere:", *lines, ""])


def _http(status: str, text: str, asked: Asked | None = None) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if asked is not None and asked.method == "HEAD" else body)
