"""Until when a certificate is valid: just enough of X.509 to say "it has expired".

Used for messages only (`kecs.kube.access`); nothing is trusted because of what is read here. The standard
library shows the dates of a peer's certificate only, not of our own. Pure.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator

_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_VERSION = 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def not_after(pem: str) -> datetime.datetime | None:
    """Return when the first certificate in `pem` ends to be valid; None when that cannot be read."""
    begin, end = pem.find(_BEGIN), pem.find(_END)
    if begin < 0 or end < begin:
        return None
    try:
        return _not_after(ssl.PEM_cert_to_DER_cert(pem[begin : end + len(_END)]))
    except (ValueError, IndexError, StopIteration):
        return None


def _not_after(der: bytes) -> datetime.datetime:
    """Walk Certificate > TBSCertificate > Validity > notAfter (RFC 5280, 4.1)."""
    _, certificate = next(_elements(der))
    _, to_be_signed = next(_elements(certificate))
    members = [(tag, value) for tag, value in _elements(to_be_signed) if tag != _VERSION]
    _serial, _algorithm, _issuer, validity = (value for _, value in members[:4])
    _, (tag, end) = _elements(validity)
    text = end.decode("ascii")
    if (
        tag == _UTC_TIME
    ):  # two digits of the year: 50 to 99 are of the twentieth century (RFC 5280, 4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and value of each element that follows another in `der` (X.690, 8.1)."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        if at + length > len(der):
            raise ValueError("it ends in the middle")
        yield tag, der[at : at + length]
        at += length
