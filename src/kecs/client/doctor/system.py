"""Checks of what the system gives: open files, proxies in the environment, the clock."""

from __future__ import annotations

import resource
import time
import urllib.request
from collections.abc import Iterator

from kecs.client.doctor.finding import Finding, error, ok, warning
from kecs.client.doctor.machine import Machine

FEW = 1024
"""Open files with which an agent holds some hundred connections: two for each."""
ENOUGH = 8192
PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
"""What clients of an `http://` address look at."""
BUILT = 1_735_689_600.0
"""2025-01-01: an earlier time is no time."""
AHEAD = 60.0
"""Seconds by which a file may be ahead of the clock."""


def check_descriptors(machine: Machine) -> Iterator[Finding]:
    """Look how many files the agent may open: it raises its limit as far as the hard one."""
    soft, hard = machine.descriptors
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH:
        yield ok("descriptors", f"the agent may open {_many(hard)} files (it begins with {_many(soft)})")
    elif hard >= FEW:
        yield warning(
            "descriptors",
            f"the agent may open {hard} files only: about {hard // 2} connections at once",
            f"raise the hard limit to {ENOUGH} or more: `ulimit -Hn {ENOUGH}` as root, or `nofile` in "
            "/etc/security/limits.conf",
        )
    else:
        yield error(
            "descriptors",
            f"the agent may open {hard} files only, which a few forwards use up",
            f"raise the hard limit to {ENOUGH} or more: `ulimit -Hn {ENOUGH}` as root, or `nofile` in "
            "/etc/security/limits.conf",
        )


def check_proxies(machine: Machine) -> Iterator[Finding]:
    """Look whether clients would go to KECS through a proxy, which cannot reach this machine's loopback."""
    env = machine.environ
    used = [name for name in PROXIES if env.get(name)]
    if not used:
        yield ok("proxies", "no proxy stands in the environment for addresses of this machine")
        return
    bypass = env.get("no_proxy") or env.get("NO_PROXY") or ""
    missing = [host for host in ("127.0.0.1", "localhost") if not _bypassed(host, bypass)]
    if not missing:
        yield ok("proxies", f"NO_PROXY keeps {used[0]} away from addresses of this machine")
        return
    both = ",".join([*filter(None, [bypass]), *missing])
    yield error(
        "proxies",
        f"{used[0]} is set and NO_PROXY does not name {' and '.join(missing)}: the AWS CLI, SDKs and curl "
        "ask the proxy, which cannot reach this machine's loopback",
        f"`export NO_PROXY={both} no_proxy={both}`",
    )


def _bypassed(host: str, bypass: str) -> bool:
    # As boto3, requests and Python's own urllib decide it.
    return bool(urllib.request.proxy_bypass_environment(host, {"no": bypass}))  # type: ignore[attr-defined]


def check_clock(machine: Machine) -> Iterator[Finding]:
    """Look whether the clock was set back: certificates, tokens and the order of events depend on it."""
    now = machine.now()
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    advice = "set the clock, or let it be set: `timedatectl set-ntp true`"
    if now < BUILT:
        yield error("clock", f"the clock says {shown}", advice)
        return
    made = [known.instance.created_at for known in machine.instances if known.instance is not None]
    if made and max(made) > now + AHEAD:
        later = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(made)))
        yield warning("clock", f"the clock says {shown}, and an instance was made at {later}", advice)
        return
    yield ok("clock", f"the clock says {shown}")


def _many(limit: int) -> str:
    return "any number of" if limit == resource.RLIM_INFINITY else str(limit)
