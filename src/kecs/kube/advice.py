"""What to tell a person about an `ApiError` or `Unreachable`: the border between `kecs.kube` and the faces.

Pure, apart from what `Access` knows about itself. Credentials are never part of it.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from kecs.errors import ExitCode, KecsError
from kecs.kube.access import Access
from kecs.kube.errors import ApiError, Unreachable

_FORBIDDEN = re.compile(
    r'cannot (?P<verb>\w+) resource "(?P<resource>[\w./-]+)"'
    r' in API group "(?P<group>[\w./-]*)"'
    r'(?: in the namespace "(?P<namespace>[\w.-]+)"| (?P<cluster>at the cluster scope))?'
)
"""How the API server words a 403 (apiserver, pkg/endpoints/handlers/responsewriters/errors.go)."""


def advice(error: ApiError | Unreachable, access: Access) -> KecsError:
    """Return the error to show, with exit code 5."""
    if isinstance(error, Unreachable):
        return KecsError(error.message, error.hint, ExitCode.UNREACHABLE)
    message, hint = _refused(error, access)
    return KecsError(message, hint, ExitCode.UNREACHABLE)


def explained(error: ApiError, access: Access) -> ApiError:
    """Return a 401 that says whose credentials were refused and what helps; any other error as it is.

    The server's own word is "Unauthorized". What waits until it is let in shows its error as it is, without
    `advice`: the cluster in `kecs status`, a task in `kecs explain`, a tunnel.
    """
    if error.status != HTTPStatus.UNAUTHORIZED:
        return error
    message, hint = _not_accepted(error, access)
    return ApiError(error.status, error.reason, f"{message}: {hint}", error.causes, error.retry_after)


def _refused(error: ApiError, access: Access) -> tuple[str, str | None]:
    who = f"context {access.context!r}"
    if error.status == HTTPStatus.UNAUTHORIZED or _is_anonymous(error):
        return _not_accepted(error, access)
    if error.status == HTTPStatus.FORBIDDEN:
        return f"the API server {access.server} refuses {who}: {error.message}", _missing(error)
    return f"the API server {access.server} answered {error}", None


def _not_accepted(error: ApiError, access: Access) -> tuple[str, str]:
    who = f"context {access.context!r}"
    if (since := access.expired) is not None:
        return (
            f"the client certificate of {who} expired on {since:%Y-%m-%d %H:%M} UTC",
            "get the cluster's kubeconfig again, or renew the certificate",
        )
    return (
        f"the API server {access.server} does not accept {access.kind} of {who} ({error.status})",
        "log in to the cluster again, or get its kubeconfig again; `kubectl auth whoami` tries it",
    )


def _is_anonymous(error: ApiError) -> bool:
    """Tell whether the server took us for nobody: it ignores a kind of credentials that it does not know."""
    return error.status == HTTPStatus.FORBIDDEN and 'User "system:anonymous"' in error.message


def _missing(error: ApiError) -> str:
    """Return which permission to ask for."""
    found = _FORBIDDEN.search(error.message)
    if found is None:
        return "ask for the permissions that KECS needs (docs/guides/kubernetes.md)"
    where = f" in namespace {found['namespace']}" if found["namespace"] else " in the whole cluster"
    group = f".{found['group']}" if found["group"] else ""
    return (
        f"missing: verb `{found['verb']}` on `{found['resource']}{group}`{where};"
        " docs/guides/kubernetes.md has the Role that suffices"
    )
