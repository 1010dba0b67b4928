"""Certificates and keys of a kubeconfig: read as PEM text, and given to TLS.

Used by `kecs.kube.access` only, which says whose they are. Nothing of a key is ever put into a message.
"""

from __future__ import annotations

import base64
import os
import ssl
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple


class UnusableError(Exception):
    """It cannot be read, or TLS has no use for it; the text says what and why."""


class Pair(NamedTuple):
    """A client certificate and its key, as PEM."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Pair(…)"


def read(data: str, name: str, folder: Path, what: str) -> str:
    """Return PEM text given inline as base64 (which wins, as with kubectl) or as a file; empty for neither.

    Raises `UnusableError`.
    """
    try:
        if data:
            text = base64.b64decode("".join(data.split()), validate=True).decode("ascii")
        else:
            text = (folder / name).read_text(encoding="ascii") if name else ""
    except ValueError as error:
        raise UnusableError(f"its {what} is not PEM") from error
    except OSError as error:
        raise UnusableError(f"its {what} {folder / name} cannot be read: {error.strerror}") from error
    if (data or name) and not text.strip():
        # Taking that for "none given" would trust every authority that the system trusts.
        raise UnusableError(f"its {what} is empty")
    return text


def load_pair(tls: ssl.SSLContext, pair: Pair) -> None:
    """Give `tls` the pair. Raises `UnusableError`.

    TLS reads files only: where there are such, one that never is on a disk.
    """
    try:
        _load(tls, f"{pair.certificate.rstrip()}\n{pair.key.rstrip()}\n".encode())
    except (ssl.SSLError, OSError) as error:
        raise UnusableError("its client certificate and key do not go together or are damaged") from error


def _load(tls: ssl.SSLContext, pem: bytes) -> None:
    def no_password() -> str:
        return ""  # else OpenSSL would ask on the terminal

    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("kecs-client", os.MFD_CLOEXEC), "wb") as memory:
            memory.write(pem)
            memory.flush()
            tls.load_cert_chain(f"/proc/self/fd/{memory.fileno()}", password=no_password)
    else:
        with tempfile.NamedTemporaryFile() as file:  # mode 0600
            file.write(pem)
            file.flush()
            tls.load_cert_chain(file.name, password=no_password)
