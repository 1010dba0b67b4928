"""Opening a port-forward connection to a pod: the HTTP request that becomes a stream of SPDY frames.

Synchronous, for a worker thread of the agent; what it returns goes to the relay loop, which owns it from
then on. It must not import an HTTP client or asyncio, and reads no frame.

Plain SPDY first: no masking and no message framing, and every API server serves it.
Where something between does not pass the upgrade on, or never answers it, the same bytes go over a WebSocket
(KEP-4006, Kubernetes 1.31).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, NamedTuple
from urllib.parse import quote

import h11

from kecs import __version__
from kecs.kube import dial
from kecs.kube.access import Access
from kecs.kube.advice import explained
from kecs.kube.errors import ApiError, PodGone, Unreachable, is_status, refusal
from kecs.kube.failures import unreachable
from kecs.kube.tls import TlsSocket

Framing = Literal["spdy", "websocket"]

PORT_FORWARD = "portforward.k8s.io"
"""The protocol within the streams (apimachinery, pkg/util/portforward/constants.go)."""
FIRST_SHARE = 0.5
"""Part of the time that is left within which the first way must be answered, so that some is left for the
other: an API server answers in milliseconds, or as soon as it has reached the node."""
_MAX_REFUSAL = 64 * 1024
_NOT_UPGRADED = frozenset({400, 405, 426})
"""What an API server or a kubelet answers when something between took the Upgrade header away."""

_worked: dict[str, Framing] = {}
"""Server -> what it accepted last: it is tried first."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A connection that carries SPDY frames from now on."""

    sock: dial.Connected
    """Non-blocking; the TLS handshake is done where there is TLS."""
    framing: Framing
    """`spdy`: frames as they are; `websocket`: in binary messages."""
    rest: bytes
    """Bytes that came right behind the answer and were read with it."""


class _Offer(NamedTuple):
    """One way to ask for the upgrade."""

    framing: Framing
    method: str
    headers: dict[str, str]
    wrong: Callable[[int, Mapping[str, str]], str | None]
    """Tells what is wrong with a 101, given its headers with lower-case names."""


class _NotUpgraded(Exception):  # noqa: N818 - it never leaves this module
    """This way was refused by something that is not the API server's own mind; another may work."""

    def __init__(self, final: ApiError | Unreachable) -> None:
        super().__init__(str(final))
        self.final = final
        """What to raise when there is no other way."""


def open_portforward(
    access: Access,
    namespace: str,
    pod: str,
    *,
    timeout: float,
    over: Literal["auto", "spdy", "websocket"] = "auto",
) -> Upgraded:
    """Connect to the API server and have the connection upgraded, within `timeout` seconds in all.

    Raises `PodGone` when the pod does not exist, `ApiError` for other refusals, `Unreachable`.
    """
    deadline = dial.Deadline(timeout)
    ways = _order(access.server, over)
    try:
        for framing in ways:
            share = 1.0 if framing == ways[-1] else FIRST_SHARE
            try:
                upgraded = _with_fresh_credentials(access, namespace, pod, framing, deadline, share)
            except _NotUpgraded as error:
                failure = error.final
                continue
            _worked[access.server] = framing
            return upgraded
    except ApiError as error:
        if error.status != HTTPStatus.UNAUTHORIZED:
            raise
        raise explained(error, access) from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise unreachable(access.server, error) from error
    raise failure


def _order(server: str, over: str) -> tuple[Framing, ...]:
    if over == "spdy":
        return ("spdy",)
    if over == "websocket":
        return ("websocket",)
    return ("websocket", "spdy") if _worked.get(server) == "websocket" else ("spdy", "websocket")


def _with_fresh_credentials(
    access: Access, namespace: str, pod: str, framing: Framing, deadline: dial.Deadline, share: float
) -> Upgraded:
    credentials, generation = access.headers(), access.generation
    try:
        return _open(access, credentials, namespace, pod, framing, deadline, share)
    except ApiError as error:
        if error.status != HTTPStatus.UNAUTHORIZED or not access.renew(credentials, generation):
            raise
    return _open(access, access.headers(), namespace, pod, framing, deadline, share)


def _open(
    access: Access,
    credentials: dict[str, str],
    namespace: str,
    pod: str,
    framing: Framing,
    deadline: dial.Deadline,
    share: float,
) -> Upgraded:
    """Ask for the upgrade in one way, whose answer must come within `share` of the time that is left."""
    offer = _spdy() if framing == "spdy" else _websocket()
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/portforward"
    host = f"[{access.host}]" if ":" in access.host else access.host
    request = h11.Request(
        method=offer.method,
        target=access.path + path,
        headers=[
            ("Host", f"{host}:{access.port}"),
            ("User-Agent", f"kecs/{__version__}"),
            *offer.headers.items(),
            *credentials.items(),
        ],
    )
    sock = dial.connect(access, deadline)
    try:
        http = h11.Connection(h11.CLIENT)
        dial.send(sock, (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""), deadline)
        try:
            _await_upgrade(sock, http, offer, deadline.part(share))
        except (ConnectionError, TimeoutError) as error:
            # Proxies that do not know an upgrade may just hang up, or swallow it and wait for more.
            raise _NotUpgraded(unreachable(access.server, error)) from error
        rest = http.trailing_data[0]
        sock.setblocking(False)
        if isinstance(sock, TlsSocket):
            rest += sock.at_hand()
        return Upgraded(sock, framing, rest)
    except BaseException:
        sock.close()
        raise


def _await_upgrade(
    sock: dial.Connected, http: h11.Connection, offer: _Offer, deadline: dial.Deadline
) -> None:
    """Read the answer; return when it is the 101 that was asked for. Raises `_NotUpgraded`, `ApiError`."""
    answer = dial.next_event(sock, http, deadline)
    while (
        isinstance(answer, h11.InformationalResponse) and answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS
    ):
        answer = dial.next_event(sock, http, deadline)
    assert isinstance(answer, (h11.InformationalResponse, h11.Response))
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    if answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        if (wrong := offer.wrong(answer.status_code, headers)) is not None:
            raise _NotUpgraded(ApiError(answer.status_code, "", wrong))
        return
    body = _body(sock, http, deadline)
    error = refusal(answer.status_code, body, headers)
    if error.status in _NOT_UPGRADED or not (is_status(body) or error.status == HTTPStatus.UNAUTHORIZED):
        raise _NotUpgraded(error)
    if error.status == HTTPStatus.NOT_FOUND:
        raise PodGone(error.status, error.reason, error.message, error.causes)
    raise error


def _body(sock: dial.Connected, http: h11.Connection, deadline: dial.Deadline) -> bytes:
    body = bytearray()
    while isinstance(event := dial.next_event(sock, http, deadline), h11.Data):
        body += event.data
        if len(body) > _MAX_REFUSAL:
            break
    return bytes(body)


def _spdy() -> _Offer:
    def wrong(_status: int, headers: Mapping[str, str]) -> str | None:
        if headers.get("upgrade", "").lower() != "spdy/3.1":
            return "the server did not switch to SPDY/3.1"
        if headers.get("x-stream-protocol-version", "") != PORT_FORWARD:
            return f"the server did not choose the protocol {PORT_FORWARD}"
        return None

    headers = {
        "Connection": "Upgrade",
        "Upgrade": "SPDY/3.1",
        "X-Stream-Protocol-Version": PORT_FORWARD,
        "Content-Length": "0",
    }
    return _Offer("spdy", "POST", headers, wrong)


def _websocket() -> _Offer:
    from kecs.wire import websocket  # it brings wsproto, which an agent on plain SPDY never needs

    nonce = os.urandom(16)

    def wrong(status: int, headers: Mapping[str, str]) -> str | None:
        try:
            websocket.check_response(status, headers, nonce)
        except websocket.HandshakeError as error:
            return str(error)
        return None

    return _Offer("websocket", "GET", websocket.request(nonce), wrong)
