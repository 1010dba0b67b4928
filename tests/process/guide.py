"""The commands of a guide in docs/guides, run as they are written there, by `test_guides`.

A shell runs them in the root of the checkout, with `kecs` and `aws` on its PATH and a home of its own, in a
network namespace of its own: the ports that a guide names may be somebody's here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.process.harness import Home

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs/guides"
LOOPBACK_UP = """\
import fcntl, socket, struct
UP, SIOCSIFFLAGS = 0x1, 0x8914  # netdevice(7)
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", UP))
"""
ISOLATED = ["unshare", "--user", "--map-root-user", "--net"]


def blocks(name: str) -> dict[str, list[str]]:
    """Return the shell blocks of each section of a guide, by its heading."""
    found: dict[str, list[str]] = {}
    text = (GUIDES / name).read_text(encoding="utf-8")
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        heading, _, rest = section.partition("\n")
        if commands := re.findall(r"^```sh\n(.*?)^```$", rest, flags=re.MULTILINE | re.DOTALL):
            found[heading] = commands
    return found


def can_isolate() -> bool:
    """Tell whether this user may have a network namespace."""
    return subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode == 0


def run(home: Home, name: str, timeout: float = 240) -> dict[str, str]:
    """Run all blocks of a guide in one shell that ends at the first command that fails.

    Returns what the blocks of each section printed, standard error included, by its heading.
    """
    sections = blocks(name)
    script = "".join(f"echo '#### {heading}'\n{''.join(commands)}" for heading, commands in sections.items())
    begin = f'{sys.executable} -c "$LOOPBACK_UP"; exec 2>&1; set -eu\n'
    done = subprocess.run(
        [*ISOLATED, "sh", "-c", begin + script],
        env=home.environment | {"LOOPBACK_UP": LOOPBACK_UP},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    parts = re.split(r"^#### (.*)\n", done.stdout, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))
