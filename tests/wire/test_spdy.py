"""SPDY/3.1 as a client: against frames laid out by hand, and against a small server side of its own."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.wire import spdy, spdy_headers
from kecs.wire.spdy_headers import block, field

BLOCK = block(field("streamType", "data"), field("port", "80"))
EMPTY = block()


def control(kind: int, body: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack("!HHI", 0x8000 | version, kind, flags << 24 | len(body)) + body


def data(stream: int, payload: bytes, *, fin: bool = False) -> bytes:
    return struct.pack("!II", stream, fin << 24 | len(payload)) + payload


class Server:
    """What a server writes, and what it reads of a client: strict, and independent of the code under test."""

    def __init__(self) -> None:
        self.packer = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zdict=spdy_headers.DICTIONARY)
        self.unpacker = zlib.decompressobj(zdict=spdy_headers.DICTIONARY)
        self.buffer = b""

    def pack(self, raw: bytes = EMPTY) -> bytes:
        return self.packer.compress(raw) + self.packer.flush(zlib.Z_SYNC_FLUSH)

    def reply(self, stream: int, raw: bytes = EMPTY, flags: int = 0) -> bytes:
        return control(2, struct.pack("!I", stream) + self.pack(raw), flags)

    def read(self, session: spdy.Session) -> list[tuple]:
        """What the client queued: ("SYN", id, headers, fin), ("DATA", id, bytes, fin) or (type, *words)."""
        taken = session.take()
        assert session.pending == 0
        self.buffer += b"".join(taken)
        frames = []
        while self.buffer:
            word, length = struct.unpack_from("!II", self.buffer)
            flags, length = length >> 24, length & 0xFFFFFF
            body, self.buffer = self.buffer[8 : 8 + length], self.buffer[8 + length :]
            assert len(body) == length
            if not word >> 31:
                frames.append(("DATA", word, body, bool(flags)))
            elif word == 0x80030001:
                stream, associated, priority_and_slot = struct.unpack_from("!IIH", body)
                assert (associated, priority_and_slot) == (0, 0)
                raw = self.unpacker.decompress(body[10:])
                frames.append(("SYN", stream, spdy_headers.fields_of(raw), bool(flags)))
            else:
                assert (word >> 16, flags) == (0x8003, 0)
                frames.append((word & 0xFFFF, *struct.unpack(f"!{length // 4}I", body)))
        return frames


def opened(count: int = 1, *, replied: bool = True) -> tuple[spdy.Session, Server]:
    """Return a session with `count` streams (1, 3, …), its opening frames read and answered."""
    session, server = spdy.Session(), Server()
    for _ in range(count):
        session.open(BLOCK)
    server.read(session)
    if replied:
        for number in range(count):
            session.receive(server.reply(2 * number + 1))
    return session, server


def joined(events: list[spdy.Event]) -> list[tuple]:
    """Events with neighbouring pieces of one stream put together: what a split of the input may change."""
    result: list[tuple] = []
    for stream, what in events:
        if not isinstance(what, memoryview):
            result.append((stream, what))
            continue
        assert len(what)
        if result and result[-1][0] == stream and isinstance(result[-1][1], bytes):
            result[-1] = (stream, result[-1][1] + bytes(what))
        else:
            result.append((stream, bytes(what)))
    return result


def run(wire: bytes, sizes: list[int], count: int = 1, *, replied: bool = True):
    """Feed `wire` in pieces of the given sizes, over and over: joined events, what was sent, bytes late."""
    session, server = opened(count, replied=replied)
    events, at, turn = [], 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        events += session.receive(wire[at : at + size])
        at, turn = at + size, turn + 1
    return joined(events), server.read(session), session.late


def three_ways(wire: bytes, count: int = 1, *, replied: bool = True):
    """Read whole, byte by byte, and with bytes of a next frame behind: all must agree."""
    whole = run(wire, [len(wire)], count, replied=replied)
    assert run(wire, [1], count, replied=replied) == whole
    assert run(wire + b"\x80\x03\x00\x06\x00", [len(wire) + 5], count, replied=replied) == whole
    return whole


# Header blocks.


def test_the_dictionary_is_the_published_one():
    assert len(spdy_headers.DICTIONARY) == 1423
    # zlib names a dictionary by its Adler-32; SPDY/3's is the DICTID that every implementation sends.
    assert zlib.adler32(spdy_headers.DICTIONARY) == 0xE3C6A7C2


@given(
    headers=st.dictionaries(st.from_regex(r"[a-z-]{1,20}", fullmatch=True), st.text(max_size=40), max_size=8)
)
def test_what_is_deflated_inflates_block_by_block(headers):
    deflater, inflater = spdy_headers.Deflater(), spdy_headers.Inflater()
    raw = block(*(field(name, value) for name, value in headers.items()))
    for _ in range(3):
        assert inflater.inflate(deflater.deflate(raw)) == raw
    assert spdy_headers.fields_of(raw) == {
        name: value.encode().decode("latin-1") for name, value in headers.items()
    }


def test_a_repeated_block_is_a_few_bytes():
    deflater = spdy_headers.Deflater()
    deflater.deflate(BLOCK)
    assert len(deflater.deflate(BLOCK)) <= 12


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "cut short"),
        (b"\0\0\0", "cut short"),
        (b"\0\0\0\x01", "cut short"),
        (b"\0\0\0\x01\0\0\0\x04nam", "cut short"),
        (b"\0\0\0\x01\0\0\0\x01n\xff\xff\xff\xff", "cut short"),
        (EMPTY + b"\0", "behind"),
        (block(field("a", "1"), field("a", "2")), "twice"),
        (b"\0\0\0\x01\0\0\0\x01N\0\0\0\x01v", "upper case"),
    ],
)
def test_a_block_that_is_none_is_refused(raw, says):
    with pytest.raises(spdy_headers.BlockError, match=says):
        spdy_headers.fields_of(raw)


# What is sent.


def test_a_stream_is_opened_as_the_draft_lays_it_out():
    session = spdy.Session()
    assert session.open(EMPTY, fin=True) == 1
    frame = b"".join(session.take())
    assert frame[:18] == bytes.fromhex("80030001 01") + (len(frame) - 8).to_bytes(3, "big") + bytes.fromhex(
        "00000001 00000000 0000"
    )
    assert zlib.decompressobj(zdict=spdy_headers.DICTIONARY).decompress(frame[18:]) == EMPTY


def test_streams_get_odd_ids_and_their_frames_leave_in_one_take_in_order():
    session, server = spdy.Session(), Server()
    first, second = session.open(BLOCK), session.open(BLOCK, fin=True)
    session.data(first, b"abc")
    session.data(first, memoryview(b"d"), fin=True)
    ping = session.ping()
    assert (first, second, ping) == (1, 3, 1)
    pending = session.pending
    taken = session.take()
    assert sum(map(len, taken)) == pending
    session._out = taken
    headers = {"streamtype": "data", "port": "80"}
    assert server.read(session) == [
        ("SYN", 1, headers, False),
        ("SYN", 3, headers, True),
        ("DATA", 1, b"abc", False),
        ("DATA", 1, b"d", True),
        (6, 1),
    ]


def test_the_numbers_of_pings_are_odd_and_differ():
    session = spdy.Session()
    assert [session.ping(), session.ping(), session.ping()] == [1, 3, 5]


@given(payload=st.binary(max_size=5000), fin=st.booleans())
def test_data_arrives_as_it_was_sent(payload, fin):
    session, server = opened()
    session.data(1, bytearray(payload), fin=fin)
    assert server.read(session) == ([("DATA", 1, payload, fin)] if payload or fin else [])


def test_a_long_payload_is_queued_without_a_copy():
    session, _ = opened()
    payload = bytearray(100_000)
    session.data(1, payload)
    assert session.take()[1] is payload


def test_a_payload_above_a_frames_limit_goes_out_as_several():
    session, server = opened()
    payload = bytes(spdy.MAX_DATA) + b"rest"
    session.data(1, payload, fin=True)
    assert session.pending == len(payload) + 16
    assert server.read(session) == [
        ("DATA", 1, payload[: spdy.MAX_DATA], False),
        ("DATA", 1, b"rest", True),
    ]


def after_fin(session):
    session.data(1, b"", fin=True)


def after_reset(session):
    session.reset(1)


def after_reset_by_peer(session):
    session.receive(control(3, struct.pack("!II", 1, 5)))


@pytest.mark.parametrize("ended", [after_fin, after_reset, after_reset_by_peer])
def test_what_is_sent_on_a_stream_that_is_over_is_dropped(ended):
    session, server = opened()
    ended(session)
    server.read(session)
    session.data(1, b"x" * 5000)
    session.data(1, b"", fin=True)
    assert server.read(session) == []


def test_a_reset_is_sent_once():
    session, server = opened()
    session.reset(1)
    session.reset(1, spdy.PROTOCOL_ERROR)
    session.reset(77)
    assert server.read(session) == [(3, 1, spdy.CANCEL)]


def test_goaway_is_said_and_nothing_more_is_opened():
    session, server = opened()
    session.goaway()
    assert server.read(session) == [(7, 0, 0)]
    assert not session.can_open()
    with pytest.raises(ValueError, match="no more"):
        session.open(BLOCK)
    session.data(1, b"still open")
    assert server.read(session) == [("DATA", 1, b"still open", False)]


def test_ids_run_out_and_it_says_so():
    session = spdy.Session()
    session._next = spdy.LAST_STREAM - 2
    assert session.can_open(2)
    assert not session.can_open(3)
    assert session.open(BLOCK) == spdy.LAST_STREAM - 2
    assert session.open(BLOCK) == spdy.LAST_STREAM
    assert not session.can_open()
    with pytest.raises(ValueError, match="no more"):
        session.open(BLOCK)


# What is received.


def test_a_reply_has_its_headers_and_may_finish_the_stream():
    server = Server()
    raw = block(field("a", "1"))
    events, sent, _ = three_ways(server.reply(1, raw) + server.reply(3, raw, 1), 2, replied=False)
    assert events == [(1, spdy.Replied({"a": "1"})), (3, spdy.Replied({"a": "1"})), (3, spdy.FINISHED)]
    assert sent == []


@pytest.mark.parametrize(
    ("wire", "events", "sent"),
    [
        (data(1, b"abc"), [(1, b"abc")], []),
        (data(1, b"abc", fin=True), [(1, b"abc"), (1, spdy.FINISHED)], []),
        (data(1, b"", fin=True), [(1, spdy.FINISHED)], []),
        (data(1, b""), [], []),
        (data(1, b"a") + data(3, b"b") + data(1, b"c"), [(1, b"a"), (3, b"b"), (1, b"c")], []),
        (control(3, struct.pack("!II", 3, 5)), [(3, spdy.Reset(5))], []),
        # The peer's numbers are even, an odd one is the answer to a PING that was never sent.
        (control(6, struct.pack("!I", 2)), [], [(6, 2)]),
        (control(6, struct.pack("!I", 0xFFFFFFFE)), [], [(6, 0xFFFFFFFE)]),
        (control(6, struct.pack("!I", 9)), [], []),
        (control(7, struct.pack("!II", 3, 2)), [(0, spdy.GoAway(3, 2))], []),
        (
            control(7, struct.pack("!II", 1, 0)),
            [(3, spdy.Reset(spdy.REFUSED_STREAM)), (0, spdy.GoAway(1, 0))],
            [],
        ),
        # SETTINGS, WINDOW_UPDATE and what nobody has heard of.
        (control(4, struct.pack("!III", 1, 4, 100)) + data(1, b"x"), [(1, b"x")], []),
        (control(9, struct.pack("!II", 1, 100)) + data(1, b"x"), [(1, b"x")], []),
        (control(99, b"what?") + data(1, b"x"), [(1, b"x")], []),
    ],
)
def test_frames(wire, events, sent):
    assert three_ways(wire, 2) == (events, sent, 0)


def test_pongs_are_told_apart():
    session, _ = opened()
    session.ping()
    second = session.ping()
    assert session.receive(control(6, struct.pack("!I", second)) * 2) == [(0, spdy.Pong(second))]


def test_a_pushed_stream_is_refused_and_its_headers_keep_the_compression_in_step():
    session, server = spdy.Session(), Server()
    session.open(BLOCK)
    server.read(session)
    pushed = control(1, struct.pack("!IIH", 2, 1, 0) + server.pack(block(field("x", "y" * 100))))
    events = session.receive(pushed + server.reply(1, block(field("x", "y" * 100))))
    assert events == [(1, spdy.Replied({"x": "y" * 100}))]
    assert server.read(session) == [(3, 2, spdy.REFUSED_STREAM)]


def test_more_headers_are_read_for_the_compressions_sake_and_their_fin_counts():
    session, server = opened()
    more = control(8, struct.pack("!I", 1) + server.pack(BLOCK))
    last = control(8, struct.pack("!I", 1) + server.pack(BLOCK), 1)
    assert session.receive(more + data(1, b"x")) == [(1, b"x")]
    assert session.receive(last) == [(1, spdy.FINISHED)]


def test_a_long_frame_is_passed_on_as_it_comes_in_without_copies():
    session, server = opened()
    wire = data(1, b"x" * 5_000_000, fin=True)
    first = wire[:1008]
    ((_, piece),) = session.receive(first)
    assert piece.obj is first
    assert len(piece) == 1000
    assert session.partial == 1
    assert session.receive(wire[1008:-1])[0] == (1, wire[1008:-1])
    assert session.receive(wire[-1:]) == [(1, b"x"), (1, spdy.FINISHED)]
    assert session.partial == 0
    assert server.read(session) == []


def test_both_sides_finished_and_the_stream_is_forgotten():
    session, server = opened(2)
    session.data(1, b"", fin=True)
    session.receive(data(1, b"", fin=True))
    session.receive(data(3, b"", fin=True))
    session.data(3, b"", fin=True)
    server.read(session)
    session.reset(1)
    session.reset(3)
    assert server.read(session) == []
    assert not session._streams


def test_what_comes_late_for_a_reset_stream_is_dropped_and_counted():
    session, server = opened(2)
    first = data(1, b"x" * 100)
    session.receive(first[:58])
    session.reset(1)
    server.read(session)
    late = first[58:] + server.reply(1) + data(1, b"y" * 30, fin=True) + control(3, struct.pack("!II", 1, 5))
    assert session.receive(late + data(3, b"z")) == [(3, b"z")]
    assert session.late == 50 + 30
    assert server.read(session) == []


@given(
    frames=st.lists(
        st.tuples(
            st.sampled_from([1, 3, 5]), st.binary(max_size=60), st.sampled_from(["", "", "ping", "settings"])
        ),
        max_size=12,
    ),
    fin=st.sampled_from([1, 3, 5]),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_split_anywhere_it_says_the_same(frames, fin, sizes):
    wire = b""
    for stream, payload, before in frames:
        if before:
            wire += control(6, b"\0\0\0\x04") if before == "ping" else control(4, b"\0\0\0\0")
        wire += data(stream, payload)
    wire += data(fin, b"end", fin=True)
    events, sent, late = run(wire, sizes, 3)
    assert (events, sent, late) == run(wire, [len(wire)], 3)
    for stream in (1, 3, 5):
        expected = b"".join(payload for number, payload, _ in frames if number == stream)
        got = b"".join(what for number, what in events if number == stream and isinstance(what, bytes))
        assert got == expected + (b"end" if stream == fin else b"")
    assert sent == [(6, 4)] * sum(before == "ping" for *_, before in frames)


# What breaks the rules of one stream ends that stream only.


def second_reply(server):
    return server.reply(1)


def data_after_fin(_server):
    return data(1, b"", fin=True) + data(1, b"more")


def headers_after_fin(server):
    return data(1, b"", fin=True) + control(8, struct.pack("!I", 1) + server.pack())


@pytest.mark.parametrize(
    ("misdeed", "status"),
    [
        (second_reply, spdy.STREAM_IN_USE),
        (data_after_fin, spdy.STREAM_ALREADY_CLOSED),
        (headers_after_fin, spdy.STREAM_ALREADY_CLOSED),
    ],
)
def test_a_misdeed_on_one_stream_ends_only_that_one(misdeed, status):
    session, server = opened(2)
    events = session.receive(misdeed(server) + data(3, b"fine"))
    assert events[-2:] == [(1, spdy.Reset(status, by_peer=False)), (3, b"fine")]
    assert server.read(session) == [(3, 1, status)]


def test_data_before_the_reply_ends_the_stream():
    wire = data(1, b"too early") + data(1, b"again")
    assert three_ways(wire, replied=False) == (
        [(1, spdy.Reset(spdy.PROTOCOL_ERROR, by_peer=False))],
        [(3, 1, spdy.PROTOCOL_ERROR)],
        len(b"too early") + len(b"again"),
    )


# What breaks the connection.


def bad_zlib(_server):
    return control(2, struct.pack("!I", 1) + b"\x78\x9cnot it")


def truncated_block(server):
    return control(2, struct.pack("!I", 1) + server.pack(BLOCK)[:-20])


def upper_case(server):
    return server.reply(1, b"\0\0\0\x01\0\0\0\x01N\0\0\0\x01v")


def bomb(server):
    return server.reply(1, block(field("x", "y" * 1_000_000)))


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        (data(0, b"x"), "DATA for stream 0"),
        (data(2, b"x"), "DATA for stream 2"),
        (data(5, b"x"), "DATA for stream 5, which was never opened"),
        (data(5, b""), "DATA for stream 5"),
        (control(3, struct.pack("!II", 5, 1)), "RST_STREAM for stream 5"),
        (control(3, struct.pack("!II", 2, 1)), "RST_STREAM for stream 2"),
        (control(3, struct.pack("!I", 1)), "RST_STREAM of 4 bytes"),
        (control(6, b"\0\0\0\x02\0"), "PING of 5 bytes"),
        (control(6, b""), "PING of 0 bytes"),
        (control(7, b"\0\0\0\x02"), "GOAWAY of 4 bytes"),
        (control(2, b"\0\0\0"), "SYN_REPLY of 3 bytes"),
        (control(8, b""), "HEADERS of 0 bytes"),
        (control(1, b"\0" * 9), "SYN_STREAM of 9 bytes"),
        (control(1, struct.pack("!IIH", 1, 0, 0)), "id 1, which is not the server's"),
        (control(1, struct.pack("!IIH", 0, 0, 0)), "id 0, which is not the server's"),
        (control(2, struct.pack("!I", 5)), "SYN_REPLY for stream 5"),
        (control(2, struct.pack("!I", 2)), "SYN_REPLY for stream 2"),
        (control(8, struct.pack("!I", 2)), "HEADERS for stream 2"),
        (control(2, struct.pack("!I", 1)), "cut short"),
        (control(6, b"\0\0\0\x02", version=2), "version 2"),
        # As soon as its length is known, not after 65537 bytes.
        (control(99, bytes(spdy.MAX_CONTROL + 1))[:8], "control frame of 65537 bytes"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "DATA for stream"),
        (bad_zlib, "not compressed"),
        (truncated_block, "cut short"),
        (upper_case, "upper case"),
        (bomb, "longer than 65536"),
    ],
)
@pytest.mark.parametrize("by_bytes", [False, True])
def test_what_is_no_spdy_ends_the_connection_in_words(wire, says, by_bytes):
    session, server = opened(2, replied=False)
    raw = wire(server) if callable(wire) else wire
    with pytest.raises(spdy.ProtocolError, match=says):
        feed(session, raw, 1 if by_bytes else len(raw))


def feed(session: spdy.Session, wire: bytes, size: int) -> None:
    for at in range(0, len(wire), size):
        session.receive(wire[at : at + size])


def test_a_peer_that_compresses_without_the_dictionary_is_understood():
    """Go's zlib reader, which Kubernetes uses, tolerates it as well."""
    session, _ = opened(replied=False)
    wire = control(2, struct.pack("!I", 1) + zlib.compress(EMPTY))
    assert session.receive(wire) == [(1, spdy.Replied({}))]


def test_a_control_frame_as_long_as_allowed_is_read():
    assert three_ways(control(99, bytes(2000)) + data(1, b"x"))[0] == [(1, b"x")]
    session, _ = opened()
    assert session.receive(control(99, bytes(spdy.MAX_CONTROL)) + data(1, b"x")) == [(1, b"x")]


@pytest.mark.parametrize("kind", sorted(spdy.Session._CONTROLS))
def test_every_control_frame_of_the_table_has_sane_bounds(kind):
    name, least, most, handler = spdy.Session._CONTROLS[kind]
    assert 4 <= least <= most <= spdy.MAX_CONTROL
    assert handler.__name__ == f"_on_{name.lower()}"


@given(noise=st.binary(max_size=200))
def test_noise_is_events_or_a_protocol_error_and_never_anything_else(noise):
    session, _ = opened(2)
    with contextlib.suppress(spdy.ProtocolError):
        session.receive(noise)
