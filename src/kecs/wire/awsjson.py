"""AWS JSON 1.1: an HTTP request becomes a `Call`, a result or an error becomes a `Response`.

Protocol: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html. Nothing here knows ECS, sockets
or a server; the control plane's HTTP door calls it. Signatures are not checked: there are no secrets to
check them with; the credential scope only says which region and which access key the caller means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

MAX_BODY = 1024 * 1024
"""Bytes of a request's body. A task definition may have 64 KiB (ECS quotas); nothing else comes near."""
CONTENT_TYPE = "application/x-amz-json-1.1"

_CREDENTIAL = re.compile(r"Credential=([^\s,]+)")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class AwsJsonError(Exception):
    """A request that is no call: `code`, `message` and HTTP `status` of the answer."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Caller:
    """Who asks, by the credential scope: `<access key>/<date>/<region>/<service>/aws4_request`."""

    region: str | None = None
    access_key_id: str | None = None


@dataclass(frozen=True)
class Call:
    """One call of an operation."""

    operation: str
    params: dict[str, Any]
    """The JSON object of the body, as it came."""
    region: str
    request_id: str
    access_key_id: str | None = None


@dataclass(frozen=True)
class Response:
    """What to answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


def read_call(
    headers: Mapping[str, str],
    query: str,
    body: bytes,
    *,
    target_prefix: str,
    default_region: str,
    request_id: str,
) -> Call:
    """Read a POST to `/` as a call; raises AwsJsonError.

    `headers` have lower-case names; `query` is the query string without its question mark, which holds
    the credential of a presigned request; `default_region` is for requests that are not signed.
    """
    operation = read_operation(headers, target_prefix)
    if len(body) > MAX_BODY:
        raise AwsJsonError(
            "RequestEntityTooLargeException", f"The request is larger than {MAX_BODY} bytes.", 413
        )
    caller = read_caller(headers, query)
    return Call(
        operation=operation,
        params=_read_body(body),
        region=caller.region or default_region,
        request_id=request_id,
        access_key_id=caller.access_key_id,
    )


def read_operation(headers: Mapping[str, str], target_prefix: str) -> str:
    """Return the operation that `X-Amz-Target` names; raises AwsJsonError when it names none of ours."""
    target = headers.get("x-amz-target", "")
    prefix, dot, operation = target.rpartition(".")
    if not dot or prefix != target_prefix or not operation.isascii() or not operation.isalnum():
        shown = f"`{target[:100]}`" if target else "missing"
        raise AwsJsonError(
            "UnknownOperationException", f"X-Amz-Target must be {target_prefix}.<Operation>; it is {shown}."
        )
    return operation


def read_caller(headers: Mapping[str, str], query: str) -> Caller:
    """Return whose request it is, by its Authorization header or its presigned query.

    An unsigned request has neither. Raises AwsJsonError when there is a credential that is none.
    """
    credential = None
    if authorization := headers.get("authorization"):
        match = _CREDENTIAL.search(authorization)
        credential = match[1] if match else ""
    elif "X-Amz-Credential" in query:
        credential = parse_qs(query).get("X-Amz-Credential", [""])[0]
    if credential is None:
        return Caller()
    scope = credential.split("/")
    # SigV4A (a request for several regions) has no region in its scope, but a header of them.
    several = headers.get("x-amz-region-set", "").split(",")[0].strip() if len(scope) == 4 else ""
    region = several if len(scope) == 4 else scope[2] if len(scope) == 5 else ""
    if not scope[0] or scope[-1] != "aws4_request" or not _REGION.fullmatch(region):
        raise AwsJsonError(
            "IncompleteSignatureException",
            "Credential must be <access key id>/<date>/<region>/<service>/aws4_request.",
        )
    return Caller(region=region, access_key_id=scope[0])


def _read_body(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        params = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise AwsJsonError("SerializationException", "The request body is not valid JSON.") from err
    if not isinstance(params, dict):
        raise AwsJsonError("SerializationException", "The request body is not a JSON object.")
    return params


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def result(request_id: str, value: Mapping[str, Any]) -> Response:
    """Answer a call with its result; times are epoch seconds already."""
    return _response(200, request_id, value)


def error(
    request_id: str, code: str, message: str, status: int = 400, members: Mapping[str, Any] | None = None
) -> Response:
    """Answer with an error: its code as `__type`, its message, and the members its shape has beyond."""
    return _response(status, request_id, {"__type": code, "message": message, **(members or {})}, code)


def _response(status: int, request_id: str, value: Mapping[str, Any], code: str | None = None) -> Response:
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    headers = [
        ("content-type", CONTENT_TYPE),
        ("content-length", str(len(body))),
        ("x-amzn-requestid", request_id),
    ]
    if code:
        headers.append(("x-amzn-errortype", code))
    return Response(status, tuple(headers), body)
