"""Which ports a cluster of k3d gets: free, in one piece, and no other instance's."""

from __future__ import annotations

import socket

import pytest

from kecs.client import k3d_ports
from kecs.errors import ExitCode, KecsError


@pytest.fixture
def free(monkeypatch):
    """Let all ports be free but those of this set."""
    taken: set[int] = set()
    monkeypatch.setattr(k3d_ports, "is_free", lambda port: port not in taken)
    return taken


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", 0),
        ("1", 1),
        ("2768", 2768),
        ("30000-30000", range(30000, 30001)),
        ("32767-32767", range(32767, 32768)),
    ],
)
def test_how_many_or_which(text, wanted):
    assert k3d_ports.parse(text) == wanted
    assert k3d_ports.is_block(text) is isinstance(wanted, range)


@pytest.mark.parametrize(
    "text", ["", "2769", "-1", "1.5", "29999-30000", "32767-32768", "30001-30000", "30000-"]
)
def test_what_is_neither_is_a_usage_error(text):
    with pytest.raises(KecsError) as caught:
        k3d_ports.parse(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "`30000-30099`" in caught.value.hint


def test_a_block_begins_at_30000_and_has_100_ports(home, free):
    assert k3d_ports.choose_block(home.path, "default", None) == range(30000, 30100)


def test_a_block_is_in_one_piece_past_what_is_taken_named_or_to_be_avoided(home, free):
    free.update({30003, 30009})
    home.instance("two", published="30020-30029")
    block = k3d_ports.choose_block(home.path, "default", "10", {30012})
    assert block == range(30030, 30040)
    assert k3d_ports.choose_block(home.path, "two", "10", {30012}) == range(30013, 30023), (
        "its own is no other's"
    )


def test_the_last_ports_are_a_block_and_beyond_there_is_none(home, free):
    free.update(range(30000, 32758))
    assert k3d_ports.choose_block(home.path, "default", "10") == range(32758, 32768)
    with pytest.raises(KecsError, match="no block of 11 node ports") as caught:
        k3d_ports.choose_block(home.path, "default", "11")
    assert caught.value.exit_code == ExitCode.CONFLICT


def test_a_block_that_was_named_is_it_or_an_error(home, free):
    assert k3d_ports.choose_block(home.path, "default", "31000-31009") == range(31000, 31010)
    free.add(31004)
    with pytest.raises(KecsError, match="node port 31004") as caught:
        k3d_ports.choose_block(home.path, "default", "31000-31009")
    assert caught.value.exit_code == ExitCode.CONFLICT


def test_a_broken_neighbour_names_no_port(home, free):
    home.instance("two")
    (home.path / "instances/two/instance.yaml").write_text("{torn")
    assert k3d_ports.choose_block(home.path, "default", "3") == range(30000, 30003)


def test_ports_of_the_api_are_not_those_that_others_name(home, free):
    free.add(6443)
    home.instance("two", api_port=6444)
    assert k3d_ports.api_ports(home.path, "default", 2, {6446}) == [6445, 6447]
    free.update(k3d_ports.API_PORTS)
    with pytest.raises(KecsError, match="no port from 6443") as caught:
        k3d_ports.api_ports(home.path, "default", 1)
    assert caught.value.exit_code == ExitCode.CONFLICT


def test_a_port_is_free_until_somebody_listens():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not k3d_ports.is_free(port)
    assert k3d_ports.is_free(port)


def test_a_block_is_written_and_read():
    for block in (range(30000, 30003), range(30000, 30001)):
        assert k3d_ports.read(k3d_ports.shown(block)) == block
    assert k3d_ports.shown(range(0)) is None
    assert len(k3d_ports.read(None)) == 0
