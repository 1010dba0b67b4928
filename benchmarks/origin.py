"""What all proxies lead to: nginx, which answers a few bytes to each request, and an iperf3 server.

Both listen on every address of this machine's loopback network, so that each run can have an address of its
own: connections that linger in TIME_WAIT are in nobody else's way then.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import programs

_NGINX = """\
daemon off; master_process off; pid {folder}/origin.pid; error_log stderr warn;
events {{ worker_connections {connections}; multi_accept on; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; client_header_timeout 3600s;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 0.0.0.0:{port} backlog=4096; location / {{ return 200 "hello\\n"; }} }}
}}
"""


@dataclass(frozen=True)
class Origin:
    """Ports on 0.0.0.0."""

    http: int
    bulk: int


@contextlib.contextmanager
def origin(folder: Path) -> Iterator[Origin]:
    """Run both."""
    http, bulk = programs.free_ports(2)
    connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100
    config = folder / "origin.conf"
    config.write_text(_NGINX.format(folder=folder, port=http, connections=connections))
    logs = folder / "origin.log", folder / "iperf3.log"
    with (
        programs.running([programs.path_of("nginx"), "-c", str(config)], logs[0]),
        programs.running([programs.path_of("iperf3"), "--server", "--port", str(bulk)], logs[1]),
    ):
        programs.wait_for_listener(http, logs[0])
        programs.wait_for(lambda: "listening" in logs[1].read_text() or _listens(bulk), "iperf3 listens")
        yield Origin(http, bulk)


def _listens(port: int) -> bool:
    """Look without connecting: iperf3 would take that for a test."""
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
