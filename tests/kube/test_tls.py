"""The TLS socket: many records at once, what does not fit, what the kernel does not take, every end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from kecs.kube.tls import PIECE, TlsSocket

RECORD = 16 * 1024


class Peer:
    """The server's end: the standard library's, on a thread where it has to answer."""

    def __init__(self, sock, context):
        self.sock = sock
        self.tls = None
        self._context = context

    def shake(self):
        self.tls = self._context.wrap_socket(self.sock, server_side=True)


@pytest.fixture
def met(authority, certificate):
    """A function that makes a `TlsSocket` and its peer, who have not shaken hands."""

    def meet(name):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate.certificate, certificate.key)
        ours, theirs = socket.socketpair()
        ours.settimeout(5)
        theirs.settimeout(5)
        context = ssl.create_default_context(cafile=str(authority.pair.certificate))
        return TlsSocket(ours, context, name), Peer(theirs, server)

    return meet


@pytest.fixture
def ends(met):
    """A `TlsSocket` after its handshake, and its peer."""
    one, peer = met("kube.test")
    with ThreadPoolExecutor(1) as pool:
        shaken = pool.submit(peer.shake)
        one.handshake()
        shaken.result()
    one.setblocking(False)
    with closing(one), peer.tls:
        yield one, peer.tls


def wait(one):
    assert select.select([one], [], [], 5)[0]


def take(one, size, room=256 * 1024):
    """Read `size` bytes as the relay loop does."""
    data, buffer = b"", memoryview(bytearray(room))
    while len(data) < size:
        got = one.read(buffer)
        if got is None:
            wait(one)
            continue
        assert got, "it ended"
        data += buffer[:got]
    return data


def test_many_records_come_with_one_read(ends):
    one, peer = ends
    words = os.urandom(5 * RECORD)
    peer.sendall(words)
    wait(one)
    buffer = memoryview(bytearray(256 * 1024))
    assert one.read(buffer) == len(words)
    assert buffer[: len(words)] == words
    assert not one.more()
    assert one.read(buffer) is None


def test_what_does_not_fit_is_at_hand(ends):
    one, peer = ends
    words = os.urandom(3 * RECORD)
    peer.sendall(words)
    assert take(one, RECORD, room=RECORD) == words[:RECORD]
    assert one.more()
    assert take(one, 2 * RECORD, room=1000) == words[RECORD:]
    assert one.read(memoryview(bytearray(10))) is None
    assert not one.more()


def test_what_came_before_the_loop_is_not_forgotten(ends):
    one, peer = ends
    words = os.urandom(RECORD + 100)
    peer.sendall(words)
    one.settimeout(5)
    first = one.recv(10)
    one.setblocking(False)
    assert first + one.at_hand() == words


def test_a_write_that_the_kernel_takes_in_part_goes_on_with_the_same_bytes(ends):
    one, peer = ends
    words = os.urandom(4_000_000)
    heard = bytearray()

    def read():
        while len(heard) < len(words):
            heard.extend(peer.recv(65536))

    left, blocked = memoryview(words), 0
    reader = threading.Thread(target=read)
    while left:
        taken = one.write(left)
        left = left[taken:]
        if not taken:
            blocked += 1
            if blocked == 1:
                reader.start()
            select.select([], [one], [], 5)
    reader.join(5)
    assert blocked
    assert bytes(heard) == words


def test_a_piece_that_leaves_slowly_is_seen_to_get_on(ends):
    """Or the tunnel on a slow line would be taken for a silent one (`kecs.kube.pulse`)."""
    one, peer = ends
    one._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    words = memoryview(os.urandom(PIECE))
    seen = [one.begun()]
    while not (taken := one.write(words)):
        if one.begun() > seen[-1]:
            seen.append(one.begun())
        peer.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.recv(RECORD)
    assert taken == len(words)
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert one.begun() == 0


def test_a_farewell_ends_it_behind_what_was_said(ends):
    one, peer = ends
    peer.sendall(b"last words")
    peer.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        peer.unwrap()  # it says farewell, and would wait for ours
    assert take(one, 10) == b"last words"
    assert one.more(), "the farewell came with them: no poll reports it"
    assert one.read(memoryview(bytearray(10))) == 0


def test_an_end_without_a_farewell_is_an_end(ends):
    one, peer = ends
    peer.sendall(b"last words")
    peer.close()
    buffer = memoryview(bytearray(256 * 1024))
    wait(one)
    assert one.read(buffer) == 10
    assert one.read(buffer) == 0


def test_a_record_that_was_tampered_with_is_an_error(ends):
    one, peer = ends
    raw = socket.socket(fileno=os.dup(peer.fileno()))
    with raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        take(one, 1)


def test_a_stranger_is_told_why(met):
    """Its certificate is for another name: the error says so, and the server gets an alert."""
    one, peer = met("another.test")
    with closing(one), ThreadPoolExecutor(1) as pool:
        shaken = pool.submit(peer.shake)
        with pytest.raises(ssl.SSLCertVerificationError, match=r"another\.test"):
            one.handshake()
        with peer.sock, pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            shaken.result(5) or peer.tls.recv(1)
    if peer.tls is not None:
        peer.tls.close()


def test_the_time_out_is_for_the_whole_handshake(authority):
    """A server that says a byte at a time, of a record that never ends, does not extend it."""
    ours, theirs = socket.socketpair()
    context = ssl.create_default_context(cafile=str(authority.pair.certificate))
    ended = threading.Event()

    def dribble():
        with theirs:
            theirs.sendall(b"\x16\x03\x03\x40\x00")
            while not ended.wait(0.02):
                theirs.sendall(b"\x02")

    ours.settimeout(0.3)
    thread = threading.Thread(target=dribble)
    with closing(TlsSocket(ours, context, "kube.test")) as one:
        thread.start()
        with pytest.raises(TimeoutError):
            one.handshake()
        ended.set()
        thread.join(5)
