"""How a web page gives itself away at a door of this machine (docs/design/contracts.md, 8). No I/O.

A page in a browser can have requests sent here, by any name whose address it has turned to 127.0.0.1 (DNS
rebinding); it cannot choose the `Host` or leave out the `Origin`. Used by the doors of both daemons.
"""

from __future__ import annotations

import re

_OWN_HOST = re.compile(r"(?:(?:[a-z0-9-]+\.)*localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
"""Names that lead nowhere but to this machine, so that no foreign page can have one: RFC 6761, 6.3
says so of `localhost` and every name below it."""

ORIGIN_REFUSED = "Requests of web pages (with an Origin) are refused."


def host_refused(host: str) -> str | None:
    """Say why a request with this `Host` is refused; None for a name of this machine."""
    if _OWN_HOST.fullmatch(host.lower()):
        return None
    return f"The Host `{host.lower()[:100]}` is not this machine: use localhost, 127.0.0.1 or [::1]."
