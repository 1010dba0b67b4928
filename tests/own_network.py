"""A network of one's own for a process that runs tests beside others: loopback, and nothing else.

KECS chooses ports of this computer, and tests ask for those that were told to be free a moment ago; two
processes with tests would take them from each other. The kernel removes the namespace with its last process.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys

CLONE_NEWNET = 0x40000000
"""linux/sched.h."""
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
"""linux/sockios.h."""
IFF_UP = 1
"""linux/if.h."""
_REQUEST = struct.Struct("16sh22x")
"""netdevice(7), struct ifreq: the name of an interface, its flags."""


def enter() -> None:
    """Go there with this thread and all that it starts. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name, flags = _REQUEST.unpack(fcntl.ioctl(sock, SIOCGIFFLAGS, _REQUEST.pack(b"lo", 0)))
        fcntl.ioctl(sock, SIOCSIFFLAGS, _REQUEST.pack(name, flags | IFF_UP))


def is_possible() -> bool:
    """Tell whether `enter` would work, by a process that tries."""
    if sys.platform != "linux":
        return False
    done = subprocess.run([sys.executable, __file__], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0


if __name__ == "__main__":
    enter()
