"""Private unix sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kecs.errors import KecsError
from kecs.net import unix


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="kecs-"))
    yield path
    shutil.rmtree(path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_socket_and_folder_are_private_whatever_the_umask(folder, umask):
    path = folder / "instance" / "agent.sock"
    path.parent.mkdir(mode=0o700)
    before = os.umask(umask)
    try:
        with contextlib.closing(unix.bind_private(path)) as sock:
            assert mode(path) == 0o600
            assert mode(path.parent) == 0o700
            assert not sock.getblocking()
    finally:
        os.umask(before)


def test_the_file_is_private_from_its_first_moment(folder, monkeypatch):
    """Before any chmod of the path: nobody can slip in between."""
    seen = []
    chmod = Path.chmod
    monkeypatch.setattr(Path, "chmod", lambda self, *a: (seen.append(mode(self)), chmod(self, *a)))
    before = os.umask(0)
    try:
        unix.bind_private(folder / "s").close()
    finally:
        os.umask(before)

    assert seen[-1] == 0o600


def test_a_folder_with_a_wider_mode_is_narrowed(folder):
    folder.chmod(0o755)
    unix.bind_private(folder / "s").close()

    assert mode(folder) == 0o700


def test_a_stale_socket_is_replaced(folder):
    path = folder / "s"
    unix.bind_private(path).close()
    with contextlib.closing(unix.bind_private(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(folder):
    path = folder / "s"
    path.write_text("precious")
    with pytest.raises(KecsError, match="is not a socket") as caught:
        unix.bind_private(path)

    assert caught.value.hint
    assert path.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_a_clear_error(folder):
    (folder / "file").write_text("")
    with pytest.raises(KecsError):
        unix.bind_private(folder / "file" / "s")


def test_peer_uid_is_that_of_the_other_process(folder):
    with contextlib.closing(unix.bind_private(folder / "s")) as sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "s"))
        server, _ = sock.accept()
        with server:
            assert unix.peer_uid(server) == unix.peer_uid(client) == os.getuid()


def test_peer_uid_on_macos(monkeypatch):
    """LOCAL_PEERCRED answers a struct xucred: version 0, uid, groups."""

    class Peer:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option, size) == (0, 1, 76)
            return struct.pack("2Ih16I", version, 501, 1, *range(16))

    monkeypatch.setattr(unix, "_LINUX", False)
    version = 0
    assert unix.peer_uid(Peer()) == 501
    version = 1
    with pytest.raises(KecsError):
        unix.peer_uid(Peer())
