"""The synchronous client of the control plane: HTTP/1.1 below `/_kecs/` on `controlplane.sock`.

Used by the command line. The protocol is h11's work; every call is a connection of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlencode

from kecs.client.agent import WentAway, connect_unix, exit_code, hung
from kecs.errors import KecsError
from kecs.paths import InstancePaths

if TYPE_CHECKING:
    import h11
    import msgspec

    from kecs.client import admin_types as admin
    from kecs.client.endpoints import EndpointsLine

M = TypeVar("M", bound="msgspec.Struct")
TIMEOUT = 10.0
SHUTDOWN_TIMEOUT = 180.0
"""Seconds between two lines of a shutdown: ECS allows a stopTimeout of 120 s, and tasks are drained first."""
WHAT = "the control plane"


class ControlPlaneClient:
    """Calls to the control plane of an instance. All raise `NotRunning` when nobody listens."""

    def __init__(self, paths: InstancePaths, timeout: float = TIMEOUT) -> None:
        self.paths = paths
        self.timeout = timeout

    def status(self) -> admin.Status:
        """Ask how it is."""
        from kecs.client import admin_types

        return self._get("/_kecs/status", {}, admin_types.Status)

    def endpoints(self) -> EndpointsLine:
        """Ask for all endpoints as they are now."""
        from kecs.client.endpoints import EndpointsLine

        return self._get("/_kecs/endpoints", {}, EndpointsLine)

    def ps(self, *, stopped: bool = False) -> admin.Ps:
        """List services and tasks; with `stopped` those tasks too that have ended."""
        from kecs.client import admin_types

        return self._get("/_kecs/ps", {"stopped": "1"} if stopped else {}, admin_types.Ps)

    def explain(self, kind: str, cluster: str, name: str, region: str | None = None) -> admin.Explain:
        """Explain a `service` or a `task`."""
        from kecs.client import admin_types

        query = {"type": kind, "cluster": cluster, "name": name, "region": region}
        return self._get("/_kecs/explain", query, admin_types.Explain)

    def logs(
        self,
        cluster: str,
        name: str,
        *,
        container: str | None = None,
        region: str | None = None,
        follow: bool = False,
    ) -> Iterator[admin.LogLine]:
        """Yield what the containers of a service or task wrote; with `follow` without an end."""
        from kecs.client import admin_types

        query = {
            "cluster": cluster,
            "name": name,
            "container": container,
            "region": region,
            "follow": "1" if follow else None,
        }
        silence = None if follow else self.timeout
        yield from self._lines("GET", "/_kecs/logs", query, admin_types.LogLine, silence)

    def shutdown(self) -> Iterator[admin.StopProgress]:
        """End all tasks and then the control plane; yield what it does, until the line that is `done`."""
        from kecs.client import admin_types

        for line in self._lines("POST", "/_kecs/shutdown", {}, admin_types.StopProgress, SHUTDOWN_TIMEOUT):
            yield line
            if line.done:
                return
        raise WentAway(WHAT)

    def _get(self, path: str, query: Mapping[str, str | None], into: type[M]) -> M:
        return decode(b"".join(self._body("GET", path, query, self.timeout)), into)

    def _lines(
        self, method: str, path: str, query: Mapping[str, str | None], into: type[M], silence: float | None
    ) -> Iterator[M]:
        unread = b""
        for data in self._body(method, path, query, silence):
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                if line.strip():
                    yield decode(line, into)

    def _body(
        self, method: str, path: str, query: Mapping[str, str | None], silence: float | None
    ) -> Iterator[bytes]:
        """Yield the parts of the answer's body as they come; raise the error that it stands for."""
        import h11

        target = path
        if given := {name: value for name, value in query.items() if value is not None}:
            target += "?" + urlencode(given)
        with connect_unix(str(self.paths.controlplane_socket), WHAT) as connection:
            connection.settimeout(silence)
            exchange = _Exchange(connection)
            try:
                exchange.request(method, target)
                status = exchange.status()
                if status >= 400:
                    raise _refusal(status, b"".join(exchange.body()))
                yield from exchange.body()
            except TimeoutError as error:
                raise hung(WHAT, self.paths.controlplane_pid, self.paths.controlplane_log) from error
            except (OSError, h11.RemoteProtocolError) as error:
                raise WentAway(WHAT) from error


class _Exchange:
    """One request and its answer on a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        import h11

        self._h11 = h11
        self._socket = connection
        self._protocol = h11.Connection(h11.CLIENT)

    def request(self, method: str, target: str) -> None:
        headers = [("Host", "localhost"), ("Connection", "close"), ("Content-Length", "0")]
        start = self._h11.Request(method=method, target=target, headers=headers)
        self._socket.sendall(self._protocol.send(start) + self._protocol.send(self._h11.EndOfMessage()))

    def status(self) -> int:
        """Read until the answer begins; return its status."""
        while True:
            event = self._event()
            if isinstance(event, self._h11.Response):
                return event.status_code

    def body(self) -> Iterator[bytes]:
        """Yield the parts of the body until its end. Raises `RemoteProtocolError` when it is cut."""
        while not isinstance(event := self._event(), self._h11.EndOfMessage):
            if isinstance(event, self._h11.Data):
                yield bytes(event.data)

    def _event(self) -> h11.Event:
        while True:
            event = self._protocol.next_event()
            if event is self._h11.NEED_DATA:
                self._protocol.receive_data(self._socket.recv(65536))
            elif isinstance(event, self._h11.ConnectionClosed) or event is self._h11.PAUSED:
                raise self._h11.RemoteProtocolError("the connection ended before the answer did")
            else:
                return cast("h11.Event", event)  # NEED_DATA and PAUSED are classes, not events


def decode(data: bytes, into: type[M]) -> M:
    """Read `data` as a message of type `into`."""
    import msgspec

    try:
        return msgspec.json.decode(data, type=into)
    except msgspec.DecodeError as error:
        raise KecsError(
            f"{WHAT} could not be understood: {error}",
            "another version of KECS may have started it: `kecs stop`, then `kecs start`",
        ) from error


def _refusal(status: int, body: bytes) -> KecsError:
    import msgspec

    from kecs.client import admin_types

    try:
        refusal = msgspec.json.decode(body, type=admin_types.Refusal)
    except msgspec.DecodeError:
        return KecsError(
            f"{WHAT} answered with HTTP status {status}",
            "another version of KECS may have started it: `kecs stop`, then `kecs start`",
        )
    return KecsError(refusal.message, refusal.hint, exit_code(refusal.exit_code))
