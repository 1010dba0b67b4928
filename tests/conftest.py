"""What holds for all tests."""

from __future__ import annotations

import signal

import hypothesis
from tests import own_network

AT_A_TIME = 3
"""Files of tests that run at the same time. Most wait for processes, so that is quicker on two cores, too."""


def pytest_xdist_auto_num_workers():
    """Say how many processes `--numprocesses auto` is: one, unless each can have a network of its own."""
    return AT_A_TIME if own_network.is_possible() else 0


def pytest_configure(config):
    """Make this process one in which tests mean the same wherever they run."""
    # How long an example takes says how busy the computer is.
    hypothesis.settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("untimed")
    # A worker of pytest-xdist ignores Ctrl-C, and so does what a shell runs behind its back; tests send it to
    # themselves and to programs, which inherit what is ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        own_network.enter()
