"""How a forward is written: what tells one of UDP from one of TCP."""

from __future__ import annotations

import pytest
from tests.client.fakes import row

from kecs.cli import forward_row
from kecs.cli.foreground import describe
from kecs.client.rpc_types import ConnectionEvent

UDP = row(protocol="udp", targetPort=53)


def test_a_line_says_the_protocol():
    assert forward_row.line(row()) == "prod-web  http://127.0.0.1:20000 -> prod/web:80  ACTIVE"
    assert forward_row.line(UDP) == "prod-web  udp://127.0.0.1:20000 -> prod/web:53/udp  ACTIVE"
    assert forward_row.cells(UDP, wide=False)[2:4] == ["127.0.0.1:20000", "prod/web:53/udp"]


def test_only_tcp_has_a_name():
    assert forward_row.by_name(row(), "us-east-1", 8000) == "http://web.prod.localhost:8000/"
    assert forward_row.by_name(UDP, "us-east-1", 8000) is None


@pytest.mark.parametrize(("protocol", "word"), [("tcp", "connection"), ("udp", "client")])
def test_what_comes_and_goes_in_the_foreground(protocol, word):
    common = {"time": 0.0, "forward": "pf-1", "number": 3, "protocol": protocol}
    opened = describe(ConnectionEvent(type="opened", peer="127.0.0.1:5", **common))
    assert opened.endswith(f"  pf-1  {word} 3 opened from 127.0.0.1:5")
    ended = describe(ConnectionEvent(type="ended", why="idle", received=1, sent=2, seconds=60.0, **common))
    assert ended.endswith(f"  pf-1  {word} 3 ended, 1 B in, 2 B out, 60.0 s: idle")
