"""Why there was no answer: exceptions of sockets, TLS and HTTP as `Unreachable`, in words for a person.

Used by `kecs.kube.upgrade` and `kecs.kube.client`. Knows no HTTP library: it reads the chain of causes,
whose ends are the standard library's exceptions.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

from kecs.kube.errors import Unreachable

_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED (OpenSSL, x509_vfy.h), as the following."""
_NOT_YET_VALID = 9
_UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})
"""Self-signed, self-signed in the chain, no local issuer, the leaf's signature cannot be verified."""
_WRONG_SIGNATURE = 7
_WRONG_NAME = frozenset({62, 64})
"""The host name and the IP address differ from the certificate's."""


def unreachable(server: str, error: BaseException) -> Unreachable:
    """Return what `error`, raised while talking to `server`, comes down to."""
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, Unreachable):
            return one
        if isinstance(one, ssl.SSLCertVerificationError):
            return _untrusted(server, one)
    for one in chain:
        if isinstance(one, ssl.SSLError):
            return _tls(server, one)
        if isinstance(one, socket.gaierror):
            return Unreachable(
                f"the name of the API server {server} cannot be resolved: {one.strerror}",
                "is a VPN needed, or is the kubeconfig of a cluster that is gone?",
            )
        if isinstance(one, ConnectionRefusedError):
            return Unreachable(
                f"nothing listens at the API server's address {server}",
                "start the cluster, or name another with `--kubeconfig` and `--context`",
            )
        if isinstance(one, ConnectionError):
            return Unreachable(f"the API server {server} ended the connection", None)
    for one in chain:
        if isinstance(one, TimeoutError) or type(one).__name__.endswith(("Timeout", "TimeoutException")):
            return Unreachable(
                f"the API server {server} did not answer in time", "is a VPN needed, or is the network down?"
            )
    for one in reversed(chain):
        if isinstance(one, OSError) and one.errno:
            why = os.strerror(one.errno)  # asyncio's own text repeats the address instead
            return Unreachable(f"the API server {server} cannot be reached: {why}", None)
    return Unreachable(f"the API server {server} did not answer: {error or type(error).__name__}", None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and all that it was raised from or is a group of, each once."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions)
        left.extend((one.__cause__, one.__context__))


def _untrusted(server: str, error: ssl.SSLCertVerificationError) -> Unreachable:
    code = error.verify_code
    if code == _EXPIRED:
        return Unreachable(
            f"the certificate of the API server {server} has expired",
            "renew the cluster's certificates; also see whether this machine's clock is right",
        )
    if code == _NOT_YET_VALID:
        return Unreachable(
            f"the certificate of the API server {server} is not valid yet", "is this machine's clock right?"
        )
    if code in _UNKNOWN_ISSUER or code == _WRONG_SIGNATURE:
        return Unreachable(
            f"the certificate of the API server {server} is not signed by the kubeconfig's authority",
            "the cluster was probably made anew: get its kubeconfig again",
        )
    if code in _WRONG_NAME:
        return Unreachable(
            f"the certificate of the API server {server} is for another name: {error.verify_message}",
            "set `tls-server-name` in the kubeconfig to a name that the certificate has",
        )
    return Unreachable(f"the certificate of the API server {server} is refused: {error.verify_message}", None)


def _tls(server: str, error: ssl.SSLError) -> Unreachable:
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return Unreachable(
            f"what listens at {server} does not speak TLS",
            "compare the kubeconfig's `server` with the cluster's address",
        )
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return Unreachable(f"the API server {server} ended the connection", None)
    return Unreachable(f"TLS with the API server {server} failed: {error.reason or error}", None)
