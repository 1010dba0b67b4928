"""JSON-RPC 2.0 (jsonrpc.org/specification), one object a line: bytes in, messages out, and back.

Both ends of `agent.sock` may use it. No I/O: feed what was received to a `Reader`, write what `encode_*`
returns. What the peer did wrong comes out as an `Invalid` value, never as an exception.

Narrower than the specification on purpose: no batches (a line is already a message, and several lines
may be sent at once), params by name only, and a size limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

MAX_LINE = 8 * 1024 * 1024
"""Bytes of one line without its newline. 200 forwards with 100 endpoints each are about 4 MB."""

Id = int | str | None


@dataclass(frozen=True, slots=True)
class Request:
    """A call that wants an answer with the same id."""

    id: Id
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that wants no answer."""

    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a request that worked."""

    id: Id
    result: Any


@dataclass(frozen=True, slots=True)
class Error:
    """The answer to a request that failed; `id` is None when the request's was not readable."""

    id: Id
    code: int
    message: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Invalid:
    """A line that is no message: a server answers `Error(id, code, message)`.

    After a `fatal` one nothing that follows can be understood, and the connection must be closed.
    """

    id: Id
    code: int
    message: str
    fatal: bool = False


Message = Request | Notification | Result | Error | Invalid


class Reader:
    """Cuts a stream of bytes into messages."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._buffer = bytearray()
        self._searched = 0
        """Bytes of the buffer that hold no newline, so that no byte is looked at twice."""
        self._dead = False

    @property
    def trailing(self) -> bytes:
        """Bytes received after the last whole line."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """Take `data` and return the messages that it completes."""
        if self._dead:
            return []
        self._buffer += data
        return list(self._messages())

    def _messages(self) -> Iterator[Message]:
        while True:
            end = self._buffer.find(b"\n", self._searched)
            length = len(self._buffer) if end < 0 else end
            if length > self._max_line:
                self._dead = True
                self._buffer.clear()
                yield Invalid(None, INVALID_REQUEST, f"a line is over {self._max_line} bytes", fatal=True)
                return
            if end < 0:
                self._searched = length
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if line.strip():
                yield decode(line)


def decode(line: bytes) -> Message:
    """Read one line as one message."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Invalid(None, PARSE_ERROR, f"this is not JSON: {error}")
    if isinstance(value, list):
        return Invalid(None, INVALID_REQUEST, "batches are not supported: send one object a line")
    if not isinstance(value, dict):
        return Invalid(None, INVALID_REQUEST, "a message is a JSON object")
    identity = value.get("id")
    if isinstance(identity, bool) or not isinstance(identity, int | str | None):
        return Invalid(None, INVALID_REQUEST, "`id` is a number or a string")
    if value.get("jsonrpc") != "2.0":
        return Invalid(identity, INVALID_REQUEST, '`jsonrpc` is not "2.0"')
    if "method" in value:
        return _call(value, identity)
    return _answer(value, identity)


def encode(message: Request | Notification | Result | Error) -> bytes:
    """Write one message as one line, with its newline."""
    members: dict[str, Any] = {"jsonrpc": "2.0"}
    match message:
        case Request(identity, method, params):
            members |= {"id": identity, "method": method, "params": params}
        case Notification(method, params):
            members |= {"method": method, "params": params}
        case Result(identity, result):
            members |= {"id": identity, "result": result}
        case Error(identity, code, text, data):
            error: dict[str, Any] = {"code": code, "message": text}
            if data is not None:
                error["data"] = data
            members |= {"id": identity, "error": error}
    return msgspec.json.encode(members) + b"\n"


def _call(value: dict[str, Any], identity: Id) -> Message:
    method, params = value["method"], value.get("params", {})
    if not isinstance(method, str):
        return Invalid(identity, INVALID_REQUEST, "`method` is a string")
    if not isinstance(params, dict):
        return Invalid(identity, INVALID_PARAMS, "`params` is an object: parameters go by name")
    if "id" not in value:
        return Notification(method, params)
    return Request(identity, method, params)


def _answer(value: dict[str, Any], identity: Id) -> Message:
    if ("result" in value) == ("error" in value) or "id" not in value:
        return Invalid(
            identity, INVALID_REQUEST, "a message has a `method`, or an `id` with one of `result` and `error`"
        )
    if "result" in value:
        return Result(identity, value["result"])
    error = value["error"]
    if not isinstance(error, dict):
        return Invalid(identity, INVALID_REQUEST, "`error` is an object")
    code, text = error.get("code"), error.get("message")
    if not isinstance(code, int) or isinstance(code, bool) or not isinstance(text, str):
        return Invalid(identity, INVALID_REQUEST, "`error` has a number `code` and a string `message`")
    return Error(identity, code, text, error.get("data"))
