"""The programs that are measured beside, and those that make the load: found, started, ended.

All are Debian packages; one that is missing is named with the command that installs all.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

from kecs.errors import KecsError

PACKAGES = {
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "socat": "socat",
    "wrk": "wrk",
    "iperf3": "iperf3",
}
"""Name of a program to the package that has it."""
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
STREAM_PACKAGE = "libnginx-mod-stream"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def require() -> None:
    """Raise `KecsError` when anything is missing."""
    missing = [package for name, package in PACKAGES.items() if not shutil.which(name, path=_PATH)]
    if not STREAM_MODULE.exists():
        missing.append(STREAM_PACKAGE)
    if missing:
        every = " ".join([*PACKAGES.values(), STREAM_PACKAGE])
        raise KecsError(
            f"the data path is measured beside programs that are not here: {', '.join(missing)}",
            f"apt-get install --no-install-recommends {every}",
        )


def path_of(name: str) -> str:
    """Return where a program is. Raises `KecsError` when it is not here."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise KecsError(f"the benchmarks need {name}", f"apt-get install {PACKAGES.get(name, name)}")
    return found


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[int]:
    """Run a program; yield its process id, and kill it with its children at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, below those that KECS and the kernel choose from."""
    found: list[int] = []
    numbers = list(range(10000, 20000))
    random.shuffle(numbers)
    for number in numbers:
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", number))
            found.append(number)
            if len(found) == count:
                return found
    raise RuntimeError(f"not {count} free ports from 10000 to 20000")


def wait_for_listener(port: int, log: Path, seconds: float = 10.0) -> None:
    """Return when something listens on 127.0.0.1:`port`. Raises RuntimeError with the log."""
    wait_for(lambda: _accepts(port), f"port {port} listens", seconds, log)


def wait_for(
    condition: Callable[[], object], what: str, seconds: float = 10.0, log: Path | None = None
) -> None:
    """Ask a hundred times a second until the answer is true. Raises RuntimeError after `seconds`."""
    end = monotonic() + seconds
    while not condition():
        if monotonic() > end:
            said = f"\n{log.read_text()}" if log is not None else ""
            raise RuntimeError(f"not within {seconds:g} s: {what}{said}")
        sleep(0.01)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def allow_descriptors() -> int:
    """Raise this process's limit, which its children inherit, to the hard one; return that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
