"""Port specs as k3d (by docker/go-connections) reads them, with its words against bad ones."""

import ipaddress

from world import Fatal


def _range(text):
    first, dash, last = text.partition("-")
    numbers = range(int(first), int(last if dash else first) + 1)
    if not 0 < numbers[0] <= numbers[-1] < 65536:
        raise ValueError(text)
    return numbers


def parse(spec):
    """`[IP:][HOST:]CONTAINER` -> list of [address, host port, container port, is the API's own key]."""
    raw = spec.partition("/")[0]
    parts = raw.split(":")
    container, host, address = parts[-1], parts[-2] if len(parts) > 1 else "", ":".join(parts[:-2])
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(f"invalid IP address: {address}") from None
    if not container:
        raise ValueError(f"no port specified: {raw}<empty>")
    try:
        containers = _range(container)
    except (ValueError, IndexError):
        raise ValueError(f"invalid containerPort: {container}") from None
    try:
        hosts = _range(host)
    except (ValueError, IndexError):
        raise ValueError(f"invalid hostPort: {host}") from None
    if len(hosts) != len(containers):
        raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return [[address or "0.0.0.0", one, other, False] for one, other in zip(hosts, containers, strict=True)]


def with_filter(spec):
    """`SPEC@FILTER` of `cluster create -p` -> (role, ports). Raises `Fatal` in k3d's words."""
    ports, at, node = spec.partition("@")
    role, _, rest = node.partition(":")
    if role not in ("server", "servers", "loadbalancer", "agent") or not at:
        raise Fatal(
            "failed to transform ports: Failed to parse node filters (with suffix): invalid format or empty subset"
            f" in '{node}'"
        )
    try:
        parsed = parse(ports)
    except ValueError as error:
        raise Fatal(f"failed to transform ports: error parsing port spec '{ports}': {error}") from None
    return (
        ("loadbalancer" if role == "loadbalancer" or not rest.endswith("direct") else "server"),
        parsed,
        spec,
    )


def api_port(text):
    """`--api-port` -> [address, host port]; without a host it is published on all interfaces."""
    host, colon, port = text.rpartition(":")
    if not port.isdigit() and port != "random":
        raise Fatal(
            "Failed to apply CLI overrides: failed to parse API Port spec: failed to parse Port Exposure specification"
            f" '{text}': Format must be [(HostIP|HostName):]HostPort"
        )
    return ("127.0.0.1" if host == "localhost" else host if colon else "0.0.0.0"), port
