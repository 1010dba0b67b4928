"""What can go wrong between KECS and a Kubernetes API server, as types.

Raised by everything in `kecs.kube`; whoever shows one to a person translates it with `kecs.kube.advice`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason of a refusal, about one field (`metav1.StatusCause`)."""

    reason: str
    """For example `FieldValueInvalid`."""
    field: str
    """For example `spec.ports[0].nodePort`."""
    message: str
    """For example `provided port is already allocated`."""


class ApiError(Exception):
    """The API server answered, and the answer is a refusal."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        """The HTTP status; for an ERROR event of a watch, the code in it."""
        self.reason = reason
        """`metav1.Status.reason`, for example `NotFound`, `Conflict`, `Expired`; empty when there is none."""
        self.message = message
        self.causes = causes
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again, where it said so."""


class PodGone(ApiError):  # noqa: N818 - it names the pod's state
    """The pod that was to be reached does not exist (any more)."""


class Unreachable(Exception):  # noqa: N818 - it names the server's state
    """No answer was to be had: nobody listens, the network or TLS failed, or it took too long."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        """What was tried and how it failed, in words for a person."""
        self.hint = hint
        """What that person can do, where this is known."""


class NoCredentials(Unreachable):
    """The kubeconfig's credentials cannot be had: its plugin failed or its token file is missing."""


class _Details(msgspec.Struct):
    causes: list[dict[str, Any]] = []
    retry_after: int = msgspec.field(name="retryAfterSeconds", default=0)


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


def is_status(body: bytes) -> bool:
    """Tell whether `body` is a `metav1.Status`: it was the API server that spoke, not something before it."""
    try:
        return msgspec.json.decode(body, type=_Status).kind == "Status"
    except (msgspec.MsgspecError, ValueError):
        return False


def refusal(code: int, body: bytes, headers: Mapping[str, str] | None = None) -> ApiError:
    """Return the error that an answer stands for: a `metav1.Status`, or whatever a proxy before it sent.

    `headers` are the answer's, with lower-case names.
    """
    try:
        status = msgspec.json.decode(body, type=_Status)
    except (msgspec.MsgspecError, ValueError):
        status = _Status()
    if status.kind != "Status":
        text = body[:200].decode(errors="replace").strip()
        return ApiError(code, "", text or "no explanation", retry_after=_retry_after(headers, 0))
    details = status.details or _Details()
    causes = tuple(
        Cause(str(c.get("reason", "")), str(c.get("field", "")), str(c.get("message", "")))
        for c in details.causes
    )
    after = _retry_after(headers, details.retry_after)
    return ApiError(status.code or code, status.reason, status.message, causes, after)


def _retry_after(headers: Mapping[str, str] | None, in_body: int) -> float | None:
    """Return the seconds of Retry-After (RFC 9110, 10.2.3; the API server sends no dates), or the body's."""
    said = (headers or {}).get("retry-after", "")
    if said.isdecimal():
        return float(said)
    return float(in_body) if in_body else None
