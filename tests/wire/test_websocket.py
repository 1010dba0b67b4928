"""The WebSocket as a carrier of bytes: against wsproto's own server side, and against RFC 6455's examples."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from kecs.wire import websocket as w
from kecs.wire.spdy import ProtocolError

NONCE = base64.b64decode("dGhlIHNhbXBsZSBub25jZQ==")
"""RFC 6455, 1.3: the sample nonce, whose accept value the RFC gives."""
ANSWER = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "sec-websocket-protocol": "SPDY/3.1+portforward.k8s.io",
}


def server() -> FrameProtocol:
    return FrameProtocol(client=False, extensions=[])


def read_all(data: bytes, sizes: list[int]) -> tuple[bytes, w.Framing]:
    """Feed `data` in pieces of the given sizes, over and over; return the stream and the framing."""
    framing, stream, at, turn = w.Framing(), b"", 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        stream += b"".join(framing.receive(data[at : at + size]))
        at, turn = at + size, turn + 1
    return stream, framing


def three_ways(data: bytes) -> tuple[bytes, w.Framing]:
    """Read whole, byte by byte and with the start of a next frame behind: all must agree."""
    whole, framing = read_all(data, [len(data)])
    slow, slow_framing = read_all(data, [1])
    assert (slow, slow_framing.closed, slow_framing.take()) == (whole, framing.closed, framing.take())
    trailing, _ = read_all(data + b"\x82", [len(data) + 1])
    assert trailing == whole
    return read_all(data, [len(data)])


def test_the_request_asks_for_spdy_within_a_websocket():
    assert w.request(NONCE) == {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "SPDY/3.1+portforward.k8s.io",
    }


@pytest.mark.parametrize(
    "changes", [{}, {"connection": "keep-alive, UPGRADE"}, {"upgrade": "WebSocket"}, {"x-other": "1"}]
)
def test_an_answer_with_our_accept_value_and_subprotocol_opens(changes):
    w.check_response(101, ANSWER | changes, NONCE)


@pytest.mark.parametrize(
    ("status", "changes", "says"),
    [
        (400, {}, "answered 400"),
        (200, {}, "answered 200"),
        (101, {"upgrade": "SPDY/3.1"}, "not a WebSocket"),
        (101, {"connection": "close"}, "not a WebSocket"),
        (101, {"sec-websocket-accept": "AAAA"}, "does not belong"),
        (101, {"sec-websocket-accept": ""}, "does not belong"),
        (101, {"sec-websocket-protocol": "v4.channel.k8s.io"}, "subprotocol"),
        (101, {"sec-websocket-protocol": ""}, "subprotocol"),
        (101, {"sec-websocket-extensions": "permessage-deflate"}, "extension"),
    ],
)
def test_another_answer_does_not_open(status, changes, says):
    with pytest.raises(w.HandshakeError, match=says):
        w.check_response(status, ANSWER | changes, NONCE)


@pytest.mark.parametrize("length", [1, 125, 126, 127, 65535, 65536, 200_000])
def test_a_servers_decoder_reads_what_wrap_returns(length):
    payload = bytes(range(256)) * (length // 256 + 1)
    head, tail = payload[: length // 3], memoryview(payload)[length // 3 : length]
    peer = server()
    peer.receive_bytes(b"".join(w.Framing().wrap([head, tail])))
    frames = list(peer.received_frames())
    assert {frame.opcode for frame in frames} == {Opcode.BINARY}
    assert frames[-1].message_finished
    assert b"".join(frame.payload for frame in frames) == payload[:length]


def test_payloads_are_wrapped_without_a_copy():
    payload = bytearray(100_000)
    assert w.Framing().wrap([payload])[1] is payload


def test_nothing_to_send_makes_no_message():
    assert w.Framing().wrap([]) == []


@given(
    messages=st.lists(st.binary(min_size=1, max_size=400), max_size=6),
    parts=st.lists(st.booleans(), min_size=6, max_size=6),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
)
def test_messages_split_and_fragmented_anywhere_are_one_stream(messages, parts, sizes):
    peer, wire = server(), b""
    for message, fragmented in zip(messages, parts, strict=False):
        if fragmented:
            half = len(message) // 2
            wire += peer.send_data(message[:half], fin=False) + peer.ping(b"between")
            wire += peer.send_data(message[half:])
        else:
            wire += peer.send_data(message)
    stream, framing = read_all(bytes(wire), sizes)
    assert stream == b"".join(messages)
    assert len(framing.take()) == sum(parts[: len(messages)])


def test_a_message_is_passed_on_as_it_comes_in():
    wire = bytes(server().send_data(b"x" * 1000))
    framing = w.Framing()
    assert framing.receive(wire[:104]) == [b"x" * 100]
    assert framing.receive(wire[104:]) == [b"x" * 900]


def test_a_ping_is_answered_with_its_bytes():
    peer = server()
    stream, framing = three_ways(
        bytes(peer.send_data(b"ab") + peer.ping(b"are you there?") + peer.send_data(b"c"))
    )
    assert stream == b"abc"
    peer.receive_bytes(b"".join(framing.take()))
    (pong,) = peer.received_frames()
    assert (pong.opcode, pong.payload) == (Opcode.PONG, b"are you there?")
    assert framing.take() == []


def test_a_pong_is_nothing():
    stream, framing = three_ways(bytes(server().pong(b"unasked")))
    assert (stream, framing.take(), framing.closed) == (b"", [], None)


@pytest.mark.parametrize(
    ("args", "closed"),
    [
        ((CloseReason.NORMAL_CLOSURE, None), w.Closed(1000, "")),
        ((CloseReason.GOING_AWAY, "bye"), w.Closed(1001, "bye")),
        ((CloseReason.INTERNAL_ERROR, "no pod"), w.Closed(1011, "no pod")),
        ((None, None), w.Closed(1005, "")),
    ],
)
def test_the_peers_closing_frame_ends_the_stream_and_is_answered_once(args, closed):
    peer = server()
    stream, framing = three_ways(bytes(peer.send_data(b"last") + peer.close(*args)))
    assert (stream, framing.closed) == (b"last", closed)
    framing.close()
    peer.receive_bytes(b"".join(framing.take()))
    (answer,) = peer.received_frames()
    assert (answer.opcode, answer.payload) == (Opcode.CLOSE, (CloseReason.NORMAL_CLOSURE, ""))


def test_what_follows_the_closing_frame_is_not_read():
    peer = server()
    framing = w.Framing()
    assert framing.receive(bytes(peer.close(1000) + peer.send_data(b"late"))) == []
    assert framing.receive(b"later") == []


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        (bytes(server().send_data("text")), "text message"),
        # Its mask is random, and would be a part of the test's name.
        pytest.param(
            bytes(FrameProtocol(client=True, extensions=[]).send_data(b"masked")), "masked frame", id="masked"
        ),
        (b"\x83\x00", "opcode"),
        (b"\xc2\x00", "Reserved bit"),
        (b"\x80\x00", "CONTINUATION"),
        (b"\x09\x00", "fragment control"),
        (b"\x88\x01\x03", "1 byte"),
        (b"\x88\x02\x00\x01", "invalid code"),
        (b"\x82\x7e\x00\x01", "2 bytes"),
    ],
)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_what_is_no_carrier_of_spdy_is_refused_in_words(wire, says, by_bytes):
    with pytest.raises(ProtocolError, match=says):
        read_all(wire, [1 if by_bytes else len(wire)])
