"""A network of a test's own, in which every port is free: for files whose ports are fixed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

import pytest

CLONE_NEWNET = 0x40000000  # linux/sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Move this thread, and the processes that it starts, into a network namespace with a loopback only.

    Skips the test where that is not allowed: it takes root on Linux.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    except OSError:
        pytest.skip("there are no network namespaces here")
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"a network namespace cannot be made: {os.strerror(ctypes.get_errno())}")
        try:
            _raise_loopback()
            yield
        finally:
            assert libc.setns(before, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = bytearray(struct.pack("16sh14x", b"lo", 0))
        fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", request, 16)
        struct.pack_into("h", request, 16, flags | IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)
