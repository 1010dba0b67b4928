"""Who may call the ECS API: RunTask runs code, so only this user's own programs (contracts, 8).

A web page must not (foreign `Host` after DNS rebinding, any `Origin`), another user of the machine must
not (the peer's uid, where the kernel tells it), and where it does not, the access key decides.
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

from kecs import procnet
from kecs.client import web_pages
from kecs.client.instance import Instance
from kecs.net import unix
from kecs.wire.awsjson import AwsJsonError

Address = tuple[str, int]

_ROOT = 0


class Peer:
    """The other end of one connection; the kernel is asked about it at most once."""

    def __init__(self, client: Any, server: Any) -> None:
        """Take the ends of the connection as `getpeername` and `getsockname` give them."""
        self._client = _tcp_address(client)
        self._server = _tcp_address(server)
        self._refusal: str | None = None
        self._asked = False

    @property
    def is_told(self) -> bool:
        """True when the kernel tells whose the peer is: on Linux, over loopback."""
        return sys.platform == "linux" and self._client is not None and _is_loopback(self._client[0])

    def refusal(self) -> str | None:
        """Return why this peer is refused, None for one of ours. Only where `is_told`."""
        if not self._asked:
            self._asked = True
            self._refusal = self._ask()
        return self._refusal

    def _ask(self) -> str | None:
        assert self._client is not None
        assert self._server is not None
        row = procnet.tcp_socket(self._client, self._server)
        # A socket that was closed already has inode 0, and the kernel then says uid 0 for anybody's.
        if row is None or row.inode == 0:
            return "The calling process cannot be told: its end of the connection is closed."
        if row.uid not in (os.getuid(), _ROOT):
            return f"Calls of other users of this machine (uid {row.uid}) are refused."
        return None


class Doors:
    """The checks of one instance's API. Each raises AwsJsonError (HTTP 403) when a request may not pass."""

    def __init__(self, instance: Instance) -> None:
        self._key = instance.access_key_id
        self._require_key = instance.require_key

    def refuse_web_pages(self, headers: Mapping[str, str]) -> None:
        """Refuse a foreign Host and any Origin; `headers` have lower-case names."""
        refused = web_pages.host_refused(headers.get("host", ""))
        if refused is None and "origin" in headers:
            refused = web_pages.ORIGIN_REFUSED
        if refused is not None:
            raise _denied(refused)

    def refuse_other_users(self, peer: Peer) -> None:
        """Refuse a peer that is known to be another user's."""
        if peer.is_told and (why := peer.refusal()):
            raise _denied(why)

    def refuse_other_keys(self, peer: Peer, access_key_id: str | None) -> None:
        """Where the peer's user is not known, or when the instance wants it so: ask for its access key."""
        if peer.is_told and not self._require_key:
            return
        if access_key_id is None:
            raise AwsJsonError(
                "MissingAuthenticationTokenException",
                'The request is not signed, and this instance asks for its key: eval "$(kecs env)"',
                403,
            )
        if not hmac.compare_digest(access_key_id.encode(), self._key.encode()):
            raise AwsJsonError(
                "UnrecognizedClientException",
                'The access key id is not the one of this instance: eval "$(kecs env)"',
                403,
            )


def is_own_process(connection: socket.socket) -> bool:
    """Tell whether the other end of a Unix connection is a process of this user or of root."""
    try:
        return unix.peer_uid(connection) in (os.getuid(), _ROOT)
    except OSError:  # the other end is gone already
        return False


def peer_of(scope: Mapping[str, Any]) -> Peer:
    """Return the peer of a request's connection; a server that keeps none per connection gets a new one."""
    peer = scope.get("state", {}).get("peer")
    return peer if isinstance(peer, Peer) else Peer(scope.get("client"), scope.get("server"))


def _tcp_address(name: Any) -> Address | None:
    """Return host and port of a socket's name; None for a Unix socket's."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple | list) and len(name) >= 2 else None


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.removeprefix("::ffff:").startswith("127.")


def _denied(message: str) -> AwsJsonError:
    return AwsJsonError("AccessDeniedException", message, 403)
