"""Reading kubeconfig files as kubectl does: which files, how several merge, what a context names.

Used by `kecs.kube.access` only. Values in, values out, apart from reading the files; nothing here connects.
Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/ and
client-go, tools/clientcmd (`api/v1/types.go`, `loader.go`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from kecs.errors import ExitCode, KecsError

DEFAULT = Path(".kube/config")
"""Below the home folder; kubectl's own default."""

_EXEC_EXTENSION = "client.authentication.k8s.io/exec"
"""Name of the cluster extension that is handed to a plugin as `spec.cluster.config`."""

T = TypeVar("T")


class Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    """Where an API server is, and whom it must prove to be."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    extensions: list[dict[str, Any]] | None = None

    def plugin_config(self) -> Any:
        """Return what this cluster wants to be told to its credential plugin."""
        named = {e.get("name"): e.get("extension") for e in self.extensions or []}
        return named.get(_EXEC_EXTENSION)


class Variable(msgspec.Struct, frozen=True):
    """One environment variable of a plugin."""

    name: str
    value: str


class Plugin(msgspec.Struct, frozen=True, rename="camel"):
    """A program that prints credentials (`exec`)."""

    api_version: str = ""
    command: str = ""
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class User(msgspec.Struct, frozen=True, rename="kebab"):
    """Who we are. Never shown or logged."""

    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    username: str = ""
    password: str = ""
    impersonate: str = msgspec.field(name="as", default="")
    impersonate_uid: str = msgspec.field(name="as-uid", default="")
    impersonate_groups: list[str] | None = msgspec.field(name="as-groups", default=None)
    impersonate_extra: dict[str, list[str]] | None = msgspec.field(name="as-user-extra", default=None)
    auth_provider: dict[str, Any] | None = None
    exec: Plugin | None = None

    def __repr__(self) -> str:
        return "User(…)"


class Context(msgspec.Struct, frozen=True, rename="kebab"):
    """Which user on which cluster."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One context with what it names, and the folders below which relative paths of each are meant."""

    name: str
    cluster: Cluster
    user: User
    cluster_folder: Path
    user_folder: Path
    source: Path
    """The file, or several joined by `os.pathsep`, from which all this was read."""


@dataclass(slots=True)
class _Merged:
    current: str = ""
    clusters: dict[str, tuple[Any, Path]] = field(default_factory=dict)
    users: dict[str, tuple[Any, Path]] = field(default_factory=dict)
    contexts: dict[str, tuple[Any, Path]] = field(default_factory=dict)


def choose(explicit: Path | None, context: str | None, environ: Mapping[str, str] = os.environ) -> Chosen:
    """Read the files that `files` names and return `context`, or the current one.

    Raises `KecsError`, exit code 5, for what is missing or not understood.
    """
    paths, required = files(explicit, environ)
    merged = _Merged()
    found = [path for path in paths if _read_into(merged, path, required=required)]
    if not found:
        raise _problem(
            f"there is no kubeconfig: {' and '.join(str(p) for p in paths)} not found",
            "name one with `--kubeconfig PATH` or in $KUBECONFIG; `kubectl config view` shows kubectl's",
        )
    shown = ", ".join(str(path) for path in found)
    name = context or merged.current
    if name not in merged.contexts:
        raise _unknown_context(name, merged, shown)
    chosen = _convert(*merged.contexts[name], Context, f"context {name!r}")
    cluster, cluster_file = _part(merged.clusters, chosen.cluster, Cluster, name, "cluster", shown)
    if not cluster.server:
        raise _problem(f"cluster {chosen.cluster!r} in {shown} names no server", "see `kubectl config view`")
    user, user_file = User(), found[0]
    if chosen.user:
        user, user_file = _part(merged.users, chosen.user, User, name, "user", shown)
    source = Path(os.pathsep.join(str(path.absolute()) for path in found))
    return Chosen(name, cluster, user, cluster_file.parent, user_file.parent, source)


def files(explicit: Path | None, environ: Mapping[str, str]) -> tuple[list[Path], bool]:
    """Return the files to read and whether each must exist.

    `explicit` is a file, or several joined as in $KUBECONFIG when no file has that name.
    """
    if explicit is not None:
        path = explicit.expanduser()
        if path.exists() or os.pathsep not in str(path):
            return [path], True
        return [Path(part) for part in str(path).split(os.pathsep) if part], False
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return named or [Path.home() / DEFAULT], False


def _read_into(merged: _Merged, path: Path, *, required: bool) -> bool:
    """Add what `path` has and earlier files had not; "the first file to set a value or map key wins"."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise _problem(
                f"the kubeconfig {path} does not exist", "name another with `--kubeconfig PATH`"
            ) from None
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise _problem(f"the kubeconfig {path} cannot be read: {error}", None) from error
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        # The error's own text quotes lines of the file, and those may be credentials.
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        raise _problem(f"the kubeconfig {path} is not YAML{line}", "see `kubectl config view`") from None
    if not isinstance(content, dict):
        raise _problem(f"the kubeconfig {path} is not a mapping", "see `kubectl config view`")
    merged.current = merged.current or str(content.get("current-context") or "")
    for section, into in (
        ("cluster", merged.clusters),
        ("user", merged.users),
        ("context", merged.contexts),
    ):
        for entry in content.get(f"{section}s") or []:
            if isinstance(entry, dict) and entry.get("name") is not None:
                into.setdefault(str(entry["name"]), (entry.get(section) or {}, path.absolute()))
    return True


def _part(
    parts: dict[str, tuple[Any, Path]], name: str, kind: type[T], context: str, what: str, shown: str
) -> tuple[T, Path]:
    if name not in parts:
        raise _problem(f"context {context!r} names {what} {name!r}, which {shown} does not have", None)
    content, path = parts[name]
    return _convert(content, path, kind, f"{what} {name!r}"), path


def _convert(content: Any, path: Path, kind: type[T], what: str) -> T:
    try:
        given = {k: v for k, v in content.items() if v is not None} if isinstance(content, dict) else content
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:  # names a field and a type, never a value
        raise _problem(f"{what} in the kubeconfig {path} is not understood: {error}", None) from None


def _unknown_context(name: str, merged: _Merged, shown: str) -> KecsError:
    there = ", ".join(sorted(merged.contexts)) or "none"
    if not name:
        return _problem(f"{shown} has no current context", f"name one with `--context`; there are: {there}")
    return _problem(
        f"there is no context {name!r} in {shown}", f"name another with `--context`; there are: {there}"
    )


def _problem(message: str, hint: str | None) -> KecsError:
    return KecsError(message, hint, ExitCode.UNREACHABLE)
