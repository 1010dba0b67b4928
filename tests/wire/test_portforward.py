"""Port-forward as Kubernetes' streaming server plays it: its order of frames was recorded, see the module."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.wire import portforward as pf
from kecs.wire import spdy, spdy_headers

CANCEL = 5
REFUSED = (
    "error forwarding port 9 to pod 6f1c, uid : failed to execute portforward in network namespace "
    '"/var/run/netns/cni-1": failed to connect to localhost:9 inside namespace "6f1c", IPv4: dial tcp4 '
    "127.0.0.1:9: connect: connection refused IPv6 dial tcp6: address localhost: no suitable address found "
)
RESET = (
    "error forwarding port 80 to pod 6f1c, uid : failed to execute portforward in network namespace "
    '"/var/run/netns/cni-1": read tcp4 127.0.0.1:46984->127.0.0.1:80: read: connection reset by peer'
)
GONE = 'error forwarding port 80 to pod 6f1c, uid : failed to find sandbox "6f1c" in store: not found'


def control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!HHI", 0x8003, kind, flags << 24 | len(body)) + body


class Server:
    """The server's side of one session: what it writes for a stream, and the frames it has read."""

    def __init__(self) -> None:
        self.packer = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zdict=spdy_headers.DICTIONARY)
        self.unpacker = zlib.decompressobj(zdict=spdy_headers.DICTIONARY)

    def reply(self, *streams: int) -> bytes:
        wire = b""
        for stream in streams:
            block = self.packer.compress(bytes(4)) + self.packer.flush(zlib.Z_SYNC_FLUSH)
            wire += control(2, struct.pack("!I", stream) + block)
        return wire

    def read(self, client: pf.Client) -> list[tuple]:
        wire, frames = b"".join(client.session.take()), []
        while wire:
            word, length = struct.unpack_from("!II", wire)
            flags, length = length >> 24, length & 0xFFFFFF
            body, wire = wire[8 : 8 + length], wire[8 + length :]
            if not word >> 31:
                frames.append(("DATA", word, body, flags))
            elif word & 0xFFFF == 1:
                headers = spdy_headers.fields_of(self.unpacker.decompress(body[10:]))
                frames.append(("SYN", *struct.unpack_from("!I", body), headers, flags))
            else:
                frames.append((word & 0xFFFF, *struct.unpack(f"!{length // 4}I", body)))
        return frames


def data(stream: int, payload: bytes | str) -> bytes:
    raw = payload.encode() if isinstance(payload, str) else payload
    return struct.pack("!II", stream, len(raw)) + raw


def fin(stream: int) -> bytes:
    return struct.pack("!II", stream, 1 << 24)


def rst(stream: int, status: int = CANCEL) -> bytes:
    return control(3, struct.pack("!II", stream, status))


def opened(count: int = 1) -> tuple[pf.Client, Server]:
    """Return a client with connections 3, 7, … whose streams were taken by the server."""
    client, server = pf.Client(), Server()
    for _ in range(count):
        client.open(80)
    server.read(client)
    client.receive(server.reply(*range(1, 4 * count, 2)))
    return client, server


def play(wire: bytes, sizes: list[int], count: int, prepare) -> tuple[list[tuple], list[tuple], int]:
    """Feed `wire` in pieces; return the events with neighbouring bytes joined, what was sent, who lives."""
    client, server = opened(count)
    prepare(client)
    server.read(client)
    events: list[tuple] = []
    at, turn = 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        for connection, what in client.receive(wire[at : at + size]):
            if not isinstance(what, memoryview):
                events.append((connection, what))
            elif events and events[-1][0] == connection and isinstance(events[-1][1], bytes):
                events[-1] = (connection, events[-1][1] + bytes(what))
            else:
                events.append((connection, bytes(what)))
        at, turn = at + size, turn + 1
    return events, server.read(client), len(client)


def three_ways(wire: bytes, count: int = 1, prepare=lambda _client: None):
    """Read whole, byte by byte, and with the start of a next frame behind: all must agree.

    Read slowly, this side may reset a stream just before it reads that the server did so too.
    """
    events, sent, alive = play(wire, [len(wire)], count, prepare)
    slow_events, slow_sent, slow_alive = play(wire, [1], count, prepare)
    assert (slow_events, slow_alive) == (events, alive)
    assert set(sent) <= set(slow_sent)
    assert play(wire + b"\x80\x03\x00", [len(wire) + 3], count, prepare) == (events, sent, alive)
    return events, sent, alive


def failed(text: str, kind: pf.Kind, *, untouched: bool) -> pf.Failure:
    return pf.Failure(kind, text, untouched)


# Opening and sending.


def test_a_connection_and_its_first_bytes_leave_together():
    client, server = pf.Client(), Server()
    first = client.open(80)
    client.send(first, b"GET /")
    second = client.open(8080)
    assert (first, second, len(client)) == (3, 7, 2)
    frames = server.read(client)
    requests = [frame[2].pop("requestid") for frame in frames if frame[0] == "SYN"]
    assert frames == [
        ("SYN", 1, {"streamtype": "error", "port": "80"}, 1),
        ("SYN", 3, {"streamtype": "data", "port": "80"}, 0),
        ("DATA", 3, b"GET /", 0),
        ("SYN", 5, {"streamtype": "error", "port": "8080"}, 1),
        ("SYN", 7, {"streamtype": "data", "port": "8080"}, 0),
    ]
    assert requests[0] == requests[1] != requests[2] == requests[3]


def test_a_reply_is_no_event_as_it_says_nothing_of_the_pod():
    client, server = pf.Client(), Server()
    client.open(80)
    assert client.receive(server.reply(1, 3)) == []


def test_a_half_closed_connection_still_receives():
    client, server = opened()
    client.half_close(3)
    client.send(3, b"too late")
    assert server.read(client) == [("DATA", 3, b"", 1)]
    assert client.receive(data(3, b"answer")) == [(3, b"answer")]


def test_an_aborted_connection_is_reset_once_and_silent():
    client, server = opened(2)
    client.abort(3)
    client.abort(3)
    client.half_close(3)
    client.send(3, b"x")
    assert server.read(client) == [(3, 3, CANCEL), (3, 1, CANCEL)]
    assert client.receive(data(3, b"late") + data(1, REFUSED) + rst(1) + fin(3) + data(7, b"y")) == [
        (7, b"y")
    ]
    assert client.session.late == 4 + len(REFUSED)
    assert len(client) == 1


def test_ids_run_out_in_pairs():
    client = pf.Client()
    client.session._next = spdy.LAST_STREAM - 2
    assert client.can_open()
    assert client.open(80) == spdy.LAST_STREAM
    assert not client.can_open()
    with pytest.raises(ValueError, match="no more"):
        client.open(80)


# Ends, in the order that the far end writes them.


@pytest.mark.parametrize(
    ("wire", "events", "sent"),
    [
        pytest.param(
            fin(3) + data(1, REFUSED) + rst(1),
            [(3, failed(REFUSED, pf.Kind.REFUSED, untouched=True))],
            [(3, 3, CANCEL)],
            id="refused",
        ),
        pytest.param(
            data(3, b"part") + fin(3) + data(1, RESET) + rst(1),
            [(3, b"part"), (3, failed(RESET, pf.Kind.RESET, untouched=False))],
            [(3, 3, CANCEL)],
            id="reset by the pod",
        ),
        pytest.param(
            data(1, GONE) + rst(3) + rst(1),
            [(3, failed(GONE, pf.Kind.GONE, untouched=True))],
            [],
            id="gone",
        ),
        pytest.param(
            data(3, b"all") + fin(3) + fin(1), [(3, b"all"), (3, pf.Ended())], [(3, 3, CANCEL)], id="orderly"
        ),
        pytest.param(
            fin(1) + data(3, b"all") + fin(3),
            [(3, b"all"), (3, pf.Ended())],
            [(3, 3, CANCEL)],
            id="orderly, of another runtime",
        ),
        pytest.param(
            data(1, "(conn=0x1, request=0) timed out waiting for streams"),
            [
                (
                    3,
                    failed(
                        "(conn=0x1, request=0) timed out waiting for streams", pf.Kind.TIMEOUT, untouched=True
                    ),
                )
            ],
            [(3, 3, CANCEL), (3, 1, CANCEL)],
            id="a text and nothing after it",
        ),
        pytest.param(
            rst(1) + rst(3),
            [(3, failed("the server reset the stream (status 5)", pf.Kind.OTHER, untouched=False))],
            [],
            id="rejected, as with port 70000",
        ),
        pytest.param(
            fin(3) + rst(1),
            [(3, failed("the server reset the stream (status 5)", pf.Kind.OTHER, untouched=False))],
            [(3, 3, CANCEL)],
            id="a verdict that never came",
        ),
        pytest.param(
            fin(3) + data(3, b"more"),
            [
                (
                    3,
                    failed(
                        "what the server sent on the stream made no sense (status 9)",
                        pf.Kind.OTHER,
                        untouched=False,
                    ),
                )
            ],
            [(3, 3, 9), (3, 1, CANCEL)],
            id="bytes after the end",
        ),
    ],
)
def test_how_a_connection_ends(wire, events, sent):
    assert three_ways(wire) == (events, sent, 0)


@pytest.mark.parametrize("wire", [fin(3), fin(1), data(3, b"x"), data(1, b""), b""])
def test_one_half_of_an_end_is_none(wire):
    events, sent, alive = three_ways(wire) if wire else ([], [], 1)
    assert [event for event in events if not isinstance(event[1], bytes)] == []
    assert (sent, alive) == ([], 1)


def test_an_end_after_half_close_may_be_a_cut_and_says_so():
    wire = data(3, b"half an ans") + fin(3) + fin(1)
    events, sent, _ = three_ways(wire, prepare=lambda client: client.half_close(3))
    assert events == [(3, b"half an ans"), (3, pf.Ended(whole=False))]
    # Both sides had finished: the far end has forgotten both streams already.
    assert sent == []


def test_an_error_concerns_its_own_connection_only():
    wire = fin(3) + data(1, REFUSED) + rst(1) + data(7, b"fine") + fin(7) + fin(5)
    events, _, alive = three_ways(wire, 3)
    assert [connection for connection, _ in events] == [3, 7, 7]
    assert events[1:] == [(7, b"fine"), (7, pf.Ended())]
    assert alive == 1


def test_a_long_text_is_kept_to_a_limit():
    ((_, failure),) = three_ways(data(1, REFUSED + "x" * 100_000) + rst(1))[0]
    assert failure.kind is pf.Kind.REFUSED
    assert len(failure.text) == pf.MAX_TEXT


def test_a_text_that_is_not_utf8_is_still_a_failure():
    ((_, failure),) = three_ways(data(1, b"\xff\xfe broken pipe"))[0]
    assert failure.kind is pf.Kind.RESET


def test_streams_that_a_leaving_server_never_saw_may_be_made_again():
    events, _, alive = three_ways(control(7, struct.pack("!II", 3, 0)) + data(3, b"x"), 2)
    assert events == [
        (7, failed("the server took no more streams", pf.Kind.OTHER, untouched=True)),
        (0, spdy.GoAway(3, 0)),
        (3, b"x"),
    ]
    assert alive == 1


def test_pongs_are_passed_on():
    client, _ = opened()
    number = client.session.ping()
    assert client.receive(control(6, struct.pack("!I", number))) == [(0, spdy.Pong(number))]


def test_nothing_is_left_of_connections_that_ended():
    client, server = opened(50)
    for connection in range(3, 200, 4):
        if connection % 8 == 3:
            client.abort(connection)
        else:
            client.receive(fin(connection) + data(connection - 2, REFUSED) + rst(connection - 2))
    server.read(client)
    assert (len(client), client._texts, client.session._streams) == (0, {}, {})


# Texts.


@pytest.mark.parametrize(
    ("text", "kind", "untouched"),
    [
        (REFUSED, pf.Kind.REFUSED, True),
        # CRI-O's socat.
        ("exit status 1: E connect(5, AF=2 127.0.0.1:80, 16): Connection refused", pf.Kind.REFUSED, True),
        ("IPv4: dial tcp4 127.0.0.1:80: i/o timeout IPv6 dial tcp6 [::1]:80: connect: connection refused",
         pf.Kind.REFUSED, True),
        (RESET, pf.Kind.RESET, False),
        ("readfrom tcp4 …: write tcp4 …: write: broken pipe", pf.Kind.RESET, False),
        (GONE, pf.Kind.GONE, True),
        ('network namespace for sandbox "6f1c" is closed', pf.Kind.GONE, True),
        ('failed to Statfs "/var/run/netns/cni-1": no such file or directory', pf.Kind.GONE, True),
        ("container 6f1c is not running", pf.Kind.GONE, True),
        ("IPv4: dial tcp4 127.0.0.1:80: i/o timeout IPv6: dial tcp6 [::1]:80: …", pf.Kind.TIMEOUT, True),
        ("read tcp4 127.0.0.1:4->127.0.0.1:80: read: connection timed out", pf.Kind.TIMEOUT, False),
        ("(conn=0x1, request=0) timed out waiting for streams", pf.Kind.TIMEOUT, True),
        ("failed to connect to localhost:80 inside namespace: no route", pf.Kind.OTHER, True),
        ("something new", pf.Kind.OTHER, False),
        ("", pf.Kind.OTHER, False),
    ],
)  # fmt: skip
def test_texts(text, kind, untouched):
    assert pf.classify(text) == pf.Failure(kind, text, untouched)


@pytest.mark.parametrize(("words", "kind"), pf._TEXTS)
def test_every_text_of_the_table_is_found_by_itself(words, kind):
    assert words == words.lower()
    assert pf.classify(f"error forwarding port 80 to pod 6f1c, uid : {words.upper()}").kind is kind


# Everything at once.

_ENDS = {
    "open": ("", None),
    "orderly": ("", pf.Ended()),
    "refused": (REFUSED, pf.Failure(pf.Kind.REFUSED, REFUSED, untouched=True)),
    "reset": (RESET, pf.Failure(pf.Kind.RESET, RESET, untouched=False)),
}


@given(
    pieces=st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=40)), max_size=15),
    ends=st.lists(st.sampled_from(sorted(_ENDS)), min_size=4, max_size=4),
    sizes=st.lists(st.integers(1, 64), min_size=1, max_size=5),
)
def test_many_connections_split_anywhere_get_their_own_bytes_and_their_own_end(pieces, ends, sizes):
    wire = b"".join(data(4 * number + 3, payload) for number, payload in pieces)
    for number, end in enumerate(ends):
        connection, (text, _) = 4 * number + 3, _ENDS[end]
        if end == "orderly":
            wire += fin(connection) + fin(connection - 2)
        elif text:
            wire += fin(connection) + data(connection - 2, text) + rst(connection - 2)
    events, _, alive = play(wire, sizes, 4, lambda _client: None)
    for number, end in enumerate(ends):
        of_this = [what for connection, what in events if connection == 4 * number + 3]
        assert b"".join(what for what in of_this if isinstance(what, bytes)) == b"".join(
            payload for owner, payload in pieces if owner == number
        )
        assert [what for what in of_this if not isinstance(what, bytes)] == [
            what for what in [_ENDS[end][1]] if what is not None
        ]
    assert alive == ends.count("open")


@given(noise=st.binary(max_size=200))
def test_noise_is_events_or_a_protocol_error_and_never_anything_else(noise):
    client, _ = opened(2)
    try:
        events = client.receive(noise)
    except spdy.ProtocolError:
        return
    assert all(connection in (0, 3, 7) for connection, _ in events)
