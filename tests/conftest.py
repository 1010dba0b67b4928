"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure():
    """Let Ctrl-C be heard: a worker of pytest-xdist ignores it, and what a shell runs behind its back does.

    Tests send it to themselves and to programs, which inherit what is ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
