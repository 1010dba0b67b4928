"""Values that `kecs secrets set` keeps for the `secrets` of task definitions, in `secrets.yaml`, mode 0600.

A name is a task definition's whole `valueFrom`, or the secret's or parameter's name within it
(docs/design/contracts.md, 7); which one matches is decided where a task starts.
"""

from __future__ import annotations

from kecs import files
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

VERSION = 1
MAX_NAME = 2048
"""Longest ARN that Secrets Manager takes (`SecretIdType` of its API model)."""
MAX_VALUE = 65536
"""Longest value in bytes, as in Secrets Manager (its quota page)."""


def load(paths: InstancePaths) -> dict[str, str]:
    """Return all values by name; empty when none was ever set.

    Raises `KecsError` when the file is broken (it stays: it holds what a person typed) or newer.
    """
    document = files.read_yaml(paths.secrets_file, version=VERSION)
    if document is None:
        return {}
    values = document.get("secrets", {})
    if not isinstance(values, dict) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in values.items()
    ):
        raise files.Unreadable(paths.secrets_file, "`secrets` is not a mapping of texts")
    return values


def save(paths: InstancePaths, values: dict[str, str]) -> None:
    """Replace all values. Call it under the instance's lock, or use `put` and `remove`."""
    files.write_yaml(paths.secrets_file, {"version": VERSION, "secrets": dict(sorted(values.items()))})


def put(paths: InstancePaths, name: str, value: str) -> bool:
    """Keep `value` under `name`; tell whether it replaced another one."""
    check_name(name)
    if len(value.encode()) > MAX_VALUE:
        raise KecsError(
            f"the value of `{name}` has {len(value.encode())} bytes, more than {MAX_VALUE}",
            "keep large contents in a file, and name the file in the secret",
            ExitCode.USAGE,
        )
    with files.locked(paths.instance_lock):
        values = load(paths)
        known = name in values
        save(paths, {**values, name: value})
    return known


def remove(paths: InstancePaths, names: list[str]) -> None:
    """Forget the values of `names`: all of them, or none when one is not there (exit 3)."""
    with files.locked(paths.instance_lock):
        values = load(paths)
        for name in names:
            if name not in values:
                raise KecsError(f"there is no secret `{name}`", "see `kecs secrets list`", ExitCode.NOT_FOUND)
        save(paths, {name: value for name, value in values.items() if name not in names})


def check_name(name: str) -> str:
    """Return `name` when a `valueFrom` could hold it, else raise a usage error."""
    if not name or len(name) > MAX_NAME or not name.isprintable() or any(c.isspace() for c in name):
        raise KecsError(
            f"`{name}` cannot name a secret" if name.isprintable() and name else "this cannot name a secret",
            "give the `valueFrom` of the task definition, or the name within it, such as `prod/db-password`",
            ExitCode.USAGE,
        )
    return name
