"""The synchronous client of the agent: JSON-RPC 2.0, one object a line, on `agent.sock`.

Used by the command line. It imports neither asyncio nor msgspec until a typed call is made: `list` is
answered by plain JSON (docs/design/design.md, 6: at most twice the time of `import click`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

if TYPE_CHECKING:
    from kecs.client import rpc_types as rpc

TIMEOUT = 10.0
"""Seconds until an agent that answers nothing counts as hung; starting a forward may wait 5 s for the control
plane (docs/design/contracts.md, 2)."""

KECS_ERROR = -32000
"""The same as `rpc_types.ERROR_CODE`, without its imports; tests/client/test_agent.py compares them."""


class NotRunning(KecsError):  # noqa: N818 - it names the daemon's state
    """Nobody listens on the socket."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not running", "start the instance by `kecs start`", ExitCode.UNREACHABLE)


class WentAway(KecsError):  # noqa: N818 - it names the daemon's state
    """The connection ended before the answer did: the daemon died, or is being replaced."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} went away before it answered", "run the command again", ExitCode.UNREACHABLE
        )


class AgentClient:
    """One connection to the agent of an instance; opened by the first call, a context manager."""

    def __init__(self, paths: InstancePaths, timeout: float = TIMEOUT) -> None:
        self.paths = paths
        self.timeout = timeout
        self._socket: socket.socket | None = None
        self._unread = b""
        self._id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._unread = None, b""

    def hang_up(self) -> None:
        """Have a call or a stream that another thread waits for end with `WentAway`."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def connect(self) -> None:
        """Open the connection. Raises `NotRunning` when nobody listens."""
        if self._socket is None:
            self._socket = connect_unix(str(self.paths.agent_socket), "the agent")

    def ask(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> Any:
        """Call `method` with plain JSON and return its plain JSON result."""
        return self.ask_all([(method, params or {})], timeout)[0]

    def ask_all(self, calls: list[tuple[str, dict[str, Any]]], timeout: float | None = None) -> list[Any]:
        """Send several calls at once; return their results in order. Raises the first error."""
        first = self._id + 1
        lines = []
        for method, params in calls:
            self._id += 1
            lines.append(
                json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}) + "\n"
            )
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        self._send("".join(lines).encode(), end)
        answers: dict[Any, Any] = {}
        while len(answers) < len(calls):
            answer = self._receive(end)
            if "method" not in answer:  # a notification belongs to nobody here
                answers[answer.get("id")] = answer
                if answer.get("id") is None and "error" in answer:
                    raise _error(answer["error"])
        return [_result(answers[number]) for number in range(first, self._id + 1)]

    def call(self, method: str, request: rpc.Message | None = None, timeout: float | None = None) -> Any:
        """Call `method` with its request; return its reply as the type that `rpc_types.METHODS` names."""
        import msgspec

        from kecs.client import rpc_types

        reply = rpc_types.METHODS[method][1]
        result = self.ask(method, msgspec.to_builtins(request) if request is not None else {}, timeout)
        try:
            return msgspec.convert(result, reply)
        except msgspec.ValidationError as error:
            raise _strange(f"its answer to `{method}` is not what this version expects: {error}") from error

    def hello(self) -> rpc.Hello:
        """Ask who answers."""
        reply: rpc.Hello = self.call("agent.hello")
        return reply

    def status(self) -> rpc.AgentStatus:
        """Ask how the agent is."""
        reply: rpc.AgentStatus = self.call("agent.status")
        return reply

    def start(self, request: rpc.StartRequest) -> rpc.StartReply:
        """Start forwards; waits as long as `request.wait` says, and longer by the usual time-out."""
        reply: rpc.StartReply = self.call("forward.start", request, self.timeout + (request.wait or 0.0))
        return reply

    def stop(self, request: rpc.StopRequest) -> rpc.ForwardRows:
        """Stop forwards and forget them; return those that were stopped."""
        reply: rpc.ForwardRows = self.call("forward.stop", request)
        return reply

    def get(self, forward: str) -> rpc.ForwardRow:
        """Return one forward by id or name."""
        from kecs.client import rpc_types

        reply: rpc.ForwardRow = self.call("forward.get", rpc_types.GetRequest(forward=forward))
        return reply

    def apply(self, request: rpc.ApplyRequest) -> rpc.ApplyReply:
        """Make the forwards of a file be what it says; as `start`, it waits as long as the request says."""
        reply: rpc.ApplyReply = self.call("forward.apply", request, self.timeout + (request.wait or 0.0))
        return reply

    def down(self, owner: str) -> rpc.ForwardRows:
        """Stop all that the file of this real path defined; return the forwards that were stopped."""
        from kecs.client import rpc_types

        reply: rpc.ForwardRows = self.call("forward.down", rpc_types.DownRequest(owner=owner))
        return reply

    def export(self) -> rpc.ExportReply:
        """Return what the forwards were asked to be."""
        reply: rpc.ExportReply = self.call("forward.export")
        return reply

    def history(self, forward: str) -> rpc.HistoryReply:
        """Return what happened to one forward, by id or name, since the agent started."""
        from kecs.client import rpc_types

        reply: rpc.HistoryReply = self.call("forward.history", rpc_types.GetRequest(forward=forward))
        return reply

    def open_names(self, owner: str = "") -> int | None:
        """Let services answer by name, for a file or for a person; return the port."""
        return self._names("names.open", owner)

    def close_names(self, owner: str = "") -> int | None:
        """Take that wish back; return the port while others still wish it."""
        return self._names("names.close", owner)

    def _names(self, method: str, owner: str) -> int | None:
        from kecs.client import rpc_types

        reply: rpc.NamesReply = self.call(method, rpc_types.NamesRequest(owner=owner))
        return reply.port

    def shutdown(self) -> None:
        """Tell the agent to leave; it may be gone before it answers."""
        try:
            self.ask("agent.shutdown")
        except WentAway:
            return

    def watch(self, forward: str) -> Iterator[rpc.ForwardRow | rpc.ConnectionEvent]:
        """Yield the forward's row, then what happens to it, until the caller stops asking."""
        import msgspec

        from kecs.client import rpc_types

        row: rpc.ForwardRow = self.call("forward.watch", rpc_types.GetRequest(forward=forward))
        yield row
        while True:
            message = self._receive(None)
            if message.get("method") == "forward.event":
                yield msgspec.convert(message.get("params"), rpc_types.ConnectionEvent)

    def subscribe(self, end: float | None = None) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
        """Yield all forwards as plain rows, then (rows that are new or other, ids that are gone).

        Until `end` by `time.monotonic`; None: for ever.
        """
        yield self.ask("forward.subscribe")["forwards"], []
        while True:
            try:
                message = self._next(end)
            except TimeoutError:
                return
            if message.get("method") == "forward.changed":
                params = message.get("params") or {}
                yield params.get("forwards", []), params.get("removed", [])

    def _send(self, data: bytes, end: float) -> None:
        self.connect()
        assert self._socket is not None
        try:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            self._socket.sendall(data)
        except TimeoutError as error:
            raise self._hung() from error
        except OSError as error:
            self.close()
            raise WentAway("the agent") from error

    def _receive(self, end: float | None) -> dict[str, Any]:
        try:
            return self._next(end)
        except TimeoutError as error:
            raise self._hung() from error

    def _next(self, end: float | None) -> dict[str, Any]:
        """Return the next message. Raises `TimeoutError` at `end`."""
        assert self._socket is not None
        while b"\n" not in self._unread:
            try:
                self._socket.settimeout(None if end is None else max(0.01, end - time.monotonic()))
                data = self._socket.recv(65536)
            except TimeoutError:
                raise
            except OSError as error:
                self.close()
                raise WentAway("the agent") from error
            if not data:
                self.close()
                raise WentAway("the agent")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            self.close()
            raise _strange("it sent a line that is not JSON") from error
        if not isinstance(message, dict):
            self.close()
            raise _strange("it sent a line that is not a JSON object")
        return message

    def _hung(self) -> KecsError:
        self.close()
        return hung("the agent", self.paths.agent_pid, self.paths.agent_log)


def connect_unix(path: str, what: str) -> socket.socket:
    """Connect to the Unix socket `path` of the daemon called `what`. Raises `NotRunning`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT)
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        connection.close()
        raise NotRunning(what) from error
    except OSError as error:
        connection.close()
        reason = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise KecsError(
            f"{what} cannot be reached at `{path}`: {reason}",
            "run `kecs status`, and use the KECS_HOME of the same user",
            ExitCode.UNREACHABLE,
        ) from error
    return connection


def is_up(path: str) -> bool:
    """Tell whether somebody listens on the Unix socket `path`."""
    try:
        connect_unix(path, "it").close()
    except KecsError:
        return False
    return True


def hung(what: str, pid_file: Any, log: Any) -> KecsError:
    """Return the error for a daemon that accepts and does not answer."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        pid = None
    who = f"{what} (pid {pid})" if pid else what
    return KecsError(
        f"{who} does not answer",
        f"see `{log}`" + (f"; to replace it: `kill -9 {pid}`, then run the command again" if pid else ""),
        ExitCode.UNREACHABLE,
    )


def _result(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise _error(answer["error"])
    return answer.get("result")


def _error(error: Any) -> KecsError:
    """Turn the `error` member of an answer into what its sender meant."""
    if not isinstance(error, dict):
        return _strange("it sent an error without a message")
    message, data = str(error.get("message", "the agent failed")), error.get("data")
    if error.get("code") == KECS_ERROR and isinstance(data, dict):
        return KecsError(message, data.get("hint"), exit_code(data.get("exitCode")))
    return _strange(message)


def exit_code(number: Any) -> ExitCode:
    """Return `number` as an exit code; anything else means 1."""
    try:
        return ExitCode(number)
    except ValueError:
        return ExitCode.FAILED


def _strange(why: str) -> KecsError:
    return KecsError(
        f"the agent could not be understood: {why}",
        "replace it, on the same ports: `kecs port-forward agent restart`",
    )
