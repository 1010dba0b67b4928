"""The benchmarks' own honesty: what is compared with what, and a load that leaves nothing out."""

from __future__ import annotations

import selectors
import socket
import threading
import time

import pytest
from benchmarks import paced, programs, table

from kecs.errors import KecsError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Server(threading.Thread):
    """Answers everybody, one after the other; it may be told to rest once."""

    def __init__(self, *, rest: float = 0.0, after: int = 100):
        super().__init__(daemon=True)
        self._rest, self._after = rest, after
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._over = threading.Event()
        self.answered = 0

    def run(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._over.is_set():
                for key, _ in selector.select(0.02):
                    self._serve(selector, key.fileobj)
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def _serve(self, selector, sock):
        if sock is self._listener:
            selector.register(sock.accept()[0], selectors.EVENT_READ)
        elif not sock.recv(4096):
            selector.unregister(sock)
            sock.close()
        else:
            self.answered += 1
            if self.answered == self._after:
                time.sleep(self._rest)
            sock.sendall(ANSWER)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()


def test_the_paced_load_sends_what_it_was_asked_for():
    with Server() as server:
        found = paced.paced(server.port, 200, 1)

    assert server.answered == 201  # one to learn how long an answer is
    assert found.rate == pytest.approx(200, rel=0.1)
    assert 0 < found.p50 <= found.p99


def test_a_pause_of_the_server_counts_for_all_that_were_due_meanwhile():
    """Nobody waits for the answer before the time of the next request begins (coordinated omission)."""
    with Server(rest=0.4, after=150) as server:
        found = paced.paced(server.port, 200, 1)

    assert found.p99 > 300
    assert found.p50 > 20, "80 of the 100 that count were due while it rested"
    assert found.own_p99 < 300


def test_the_peer_of_a_budget_is_the_best_one():
    peers = {"a": [10.0, 12.0, 11.0], "b": [20.0, 22.0, 21.0]}
    more = table.beside("m", "/s", [20.0, 33.0, 21.0], peers, at_least=1.0)
    less = table.beside("m", "s", [20.0, 33.0, 21.0], peers, at_most=1.2)

    assert (more.peer_name, more.peer, more.ratio, more.met) == ("b", 21.0, 1.0, True)
    assert (less.peer_name, less.peer, less.ratio, less.met) == ("a", 11.0, 2.0, False)
    assert more.spread == pytest.approx(13 / 21)


def test_a_row_is_the_same_in_json():
    row = table.beside("m", "/s", [1.0], {"a": [2.0]}, at_least=1.0)
    assert row.as_json() == {
        "measure": "m",
        "ours": 1.0,
        "peer": 2.0,
        "peer_name": "a",
        "unit": "/s",
        "ratio": 0.5,
        "spread": 0.0,
        "budget": "at least 1.0",
        "met": False,
    }
    assert "| NO" in table.show([row])


def test_a_missing_program_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(programs, "_PATH", "/nowhere")
    with pytest.raises(KecsError) as caught:
        programs.require()

    assert "haproxy" in caught.value.message
    assert "nginx-light" in caught.value.hint
    assert "apt-get install" in caught.value.hint
