"""First bytes of clients, as real ones say them."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from pathlib import Path


def get(host: str | None, target: str = "/", method: str = "GET", version: str = "1.1") -> bytes:
    """A request's head."""
    lines = [f"{method} {target} HTTP/{version}"]
    lines += [f"Host: {host}"] if host is not None else []
    return "\r\n".join([*lines, "Accept: */*", "", ""]).encode()


def client_hello(host: str | None) -> bytes:
    """What Python's TLS says first, with this server name or without any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def fragmented(hello: bytes, size: int) -> bytes:
    """The same ClientHello in records of `size` bytes each (RFC 8446, 5.1)."""
    handshake = hello[5:]
    parts = [handshake[at : at + size] for at in range(0, len(handshake), size)]
    return b"".join(hello[:3] + len(part).to_bytes(2) + part for part in parts)


def certificate(folder: Path, host: str) -> Path:
    """Make a certificate for `host`, signed by itself, and its key, in one file."""
    key, chain = folder / "key.pem", folder / "chain.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-days", "2"),
            *("-keyout", key, "-out", chain),
        ],
        check=True,
        capture_output=True,
    )
    chain.write_bytes(chain.read_bytes() + key.read_bytes())
    return chain
