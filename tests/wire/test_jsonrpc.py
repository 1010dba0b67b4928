"""JSON-RPC lines, each read three ways: whole, byte by byte, and with bytes of the next one behind."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.wire import jsonrpc as j


def three_ways(data: bytes, **options):
    """Read `data` in three ways that must agree; return the messages."""
    whole = j.Reader(**options).feed(data)

    slow = j.Reader(**options)
    by_bytes = [message for byte in data for message in slow.feed(bytes([byte]))]
    assert by_bytes == whole

    trailing = j.Reader(**options)
    assert trailing.feed(data + b'{"next') == whole
    if not any(isinstance(message, j.Invalid) and message.fatal for message in whole):
        assert trailing.trailing == b'{"next'
    return whole


def one(text: str | bytes):
    data = text.encode() if isinstance(text, str) else text
    (message,) = three_ways(data + b"\n")
    return message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"jsonrpc":"2.0","id":1,"method":"a","params":{"b":[1,null]}}',
            j.Request(1, "a", {"b": [1, None]}),
        ),
        ('{"jsonrpc":"2.0","id":"x","method":"a"}', j.Request("x", "a", {})),
        # Discouraged by the specification (4, id), and a request all the same.
        ('{"jsonrpc":"2.0","id":null,"method":"a"}', j.Request(None, "a", {})),
        ('{"jsonrpc":"2.0","method":"a","params":{}}', j.Notification("a", {})),
        ('{"jsonrpc":"2.0","id":1,"result":null}', j.Result(1, None)),
        (
            '{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no","data":{"hint":"h"}}}',
            j.Error(1, -32000, "no", {"hint": "h"}),
        ),
        ('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}', j.Error(None, -32700, "no")),
        ('  {"jsonrpc":"2.0","method":"\\u00e9","extra":1}\r', j.Notification("é", {})),
    ],
)
def test_messages(line, message):
    assert one(line) == message


@pytest.mark.parametrize(
    ("line", "code", "identity", "says"),
    [
        ("{", j.PARSE_ERROR, None, "not JSON"),
        ("{}{}", j.PARSE_ERROR, None, "not JSON"),
        (b"\xff\xfe", j.PARSE_ERROR, None, "not JSON"),
        (b'{"a":"\xff"}', j.PARSE_ERROR, None, "not JSON"),
        ("[" * 100_000, j.PARSE_ERROR, None, "not JSON"),
        ("1", j.INVALID_REQUEST, None, "a message is a JSON object"),
        ("{}", j.INVALID_REQUEST, None, "`jsonrpc`"),
        ('{"jsonrpc":"1.0","id":7,"method":"a"}', j.INVALID_REQUEST, 7, "`jsonrpc`"),
        ('[{"jsonrpc":"2.0","id":1,"method":"a"}]', j.INVALID_REQUEST, None, "batches are not supported"),
        ("[]", j.INVALID_REQUEST, None, "batches are not supported"),
        ('{"jsonrpc":"2.0","id":1.5,"method":"a"}', j.INVALID_REQUEST, None, "`id`"),
        ('{"jsonrpc":"2.0","id":true,"method":"a"}', j.INVALID_REQUEST, None, "`id`"),
        ('{"jsonrpc":"2.0","id":[],"method":"a"}', j.INVALID_REQUEST, None, "`id`"),
        ('{"jsonrpc":"2.0","id":1,"method":2}', j.INVALID_REQUEST, 1, "`method`"),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}', j.INVALID_PARAMS, 1, "by name"),
        ('{"jsonrpc":"2.0","id":1,"method":"a","params":null}', j.INVALID_PARAMS, 1, "by name"),
        ('{"jsonrpc":"2.0","id":1}', j.INVALID_REQUEST, 1, "one of `result` and `error`"),
        ('{"jsonrpc":"2.0","result":1}', j.INVALID_REQUEST, None, "one of `result` and `error`"),
        ('{"jsonrpc":"2.0","id":1,"result":1,"error":{}}', j.INVALID_REQUEST, 1, "one of"),
        ('{"jsonrpc":"2.0","id":1,"error":"no"}', j.INVALID_REQUEST, 1, "`error` is an object"),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":"no"}}', j.INVALID_REQUEST, 1, "`code`"),
    ],
)
def test_what_is_no_message_says_why_and_the_next_line_is_read(line, code, identity, says):
    data = line.encode() if isinstance(line, str) else line
    after = b'{"jsonrpc":"2.0","method":"after"}\n'

    if len(data) < 1000:
        invalid, following = three_ways(data + b"\n" + after)
    else:
        invalid, following = j.Reader().feed(data + b"\n" + after)

    assert isinstance(invalid, j.Invalid)
    assert (invalid.code, invalid.id, invalid.fatal) == (code, identity, False)
    assert says in invalid.message
    assert following == j.Notification("after", {})


def test_empty_lines_mean_nothing():
    assert three_ways(b'\n\r\n  \n{"jsonrpc":"2.0","method":"a"}\n\n') == [j.Notification("a", {})]


def test_several_messages_at_once():
    lines = b"".join(j.encode(j.Request(n, "m", {})) for n in range(5))

    assert three_ways(lines) == [j.Request(n, "m", {}) for n in range(5)]


def test_a_line_at_the_limit_is_read_and_one_byte_more_is_fatal():
    line = j.encode(j.Notification("a", {"b": "c" * 50}))
    limit = len(line) - 1

    assert three_ways(line, max_line=limit) == [j.Notification("a", {"b": "c" * 50})]
    (invalid,) = three_ways(line, max_line=limit - 1)
    assert invalid.fatal


def test_a_line_without_an_end_is_fatal_and_nothing_is_kept():
    reader = j.Reader(max_line=10)

    (invalid,) = reader.feed(b"x" * 11)

    assert invalid.fatal
    assert reader.feed(b'{"jsonrpc":"2.0","method":"a"}\n') == []
    assert reader.trailing == b""


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
IDS = st.none() | st.integers(-(2**53), 2**53) | st.text()
MESSAGES = st.one_of(
    st.builds(j.Request, IDS, st.text(), st.dictionaries(st.text(), JSON, max_size=3)),
    st.builds(j.Notification, st.text(), st.dictionaries(st.text(), JSON, max_size=3)),
    st.builds(j.Result, IDS, JSON),
    st.builds(j.Error, IDS, st.integers(-40000, 40000), st.text(), JSON),
)


@given(st.lists(MESSAGES, max_size=4))
def test_what_is_written_is_read_again(messages):
    data = b"".join(j.encode(message) for message in messages)

    assert three_ways(data) == messages
    assert [json.loads(line)["jsonrpc"] for line in data.splitlines()] == ["2.0"] * len(messages)


@given(st.binary(max_size=200))
def test_garbage_is_only_ever_invalid(data):
    """No bytes raise, and all read the same however they are cut."""
    for message in three_ways(data + b"\n"):
        assert isinstance(message, j.Invalid | j.Request | j.Notification | j.Result | j.Error)
