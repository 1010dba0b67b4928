"""Which HTTP proxy stands before an API server: the kubeconfig's `proxy-url`, or else the environment's.

Used by `kecs.kube.access` only. Pure. The environment counts as it does for kubectl, which is Go's way
(golang.org/x/net/http/httpproxy): never for this machine, `NO_PROXY` with addresses, networks and domains.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from kecs.errors import ExitCode, KecsError


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT."""

    host: str
    port: int
    authorization: str = field(repr=False)
    """Value of Proxy-Authorization; mostly empty."""
    source: str
    """Where it is configured, for messages."""


def choose(proxy_url: str, scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for `scheme://host:port`; None to connect directly.

    Raises `KecsError`, exit code 5, for a proxy of a kind that KECS does not speak.
    """
    if proxy_url:
        return _parse(proxy_url, "`proxy-url` in the kubeconfig")
    variable = f"{scheme}_proxy"
    name = variable.upper() if environ.get(variable.upper()) else variable
    url = environ.get(name, "")
    if not url or _is_local(host) or _excepted(host, port, environ):
        return None
    return _parse(url if "://" in url else f"http://{url}", f"${name}")


def _parse(url: str, source: str) -> Proxy:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http":
        raise KecsError(
            f"{source} is not the http:// URL of a proxy",
            "KECS speaks http:// proxies (CONNECT); before another kind, run a local HTTP proxy",
            ExitCode.UNREACHABLE,
        )
    authorization = ""
    if parts.username is not None:
        both = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = "Basic " + base64.b64encode(both).decode("ascii")
    return Proxy(host, port or 80, authorization, source)


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _excepted(host: str, port: int, environ: Mapping[str, str]) -> bool:
    entries = (environ.get("NO_PROXY") or environ.get("no_proxy") or "").lower().split(",")
    return any(_covers(entry.strip(), host.lower(), port) for entry in entries)


def _covers(entry: str, host: str, port: int) -> bool:
    """Tell whether one entry of NO_PROXY is about `host:port`."""
    if entry == "*":
        return True
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    if _address(entry) is None:
        entry, _, wanted = entry.rpartition(":") if entry.rpartition(":")[2].isdecimal() else (entry, "", "")
        if wanted and int(wanted) != port:
            return False
    entry = entry.strip("[]").removeprefix("*")
    if not entry:
        return False
    if address is not None:
        return _address(entry) == address
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
