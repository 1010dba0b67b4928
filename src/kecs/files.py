"""Files are promises: written whole or not at all, private, and never silently thrown away.

Used by everything that keeps state in YAML or JSON. A file that cannot be read is moved aside and
named; one written by a newer version is refused and left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kecs.errors import ExitCode, KecsError


def make_private_folder(path: Path) -> None:
    """Create `path` (and parents) with mode 0700; refuse one that another user owns."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
    except OSError as error:
        raise unusable(path, error) from error
    if owner != os.getuid():
        raise KecsError(
            f"the folder `{path}` belongs to another user (uid {owner})",
            "set KECS_HOME to a folder of your own",
        )


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` (mode 0600): write new, fsync, rename, fsync the folder.

    Raises `KecsError` when the disk is full or the folder cannot be written; the old file is then
    still whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise unusable(path, error) from error


def write_yaml(path: Path, document: Any) -> None:
    """Write `document` (plain dictionaries, lists and scalars) atomically as YAML."""
    write_atomic(path, dump_yaml(document).encode())


def dump_yaml(document: Any) -> str:
    """Return `document` (plain dictionaries, lists and scalars) as YAML, its keys in their order."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True))


def parse_yaml(data: bytes) -> Any:
    """Parse YAML by the C loader where there is one. Raises `ValueError` on anything malformed."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(data, Loader=loader)  # noqa: S506 - both loaders are safe ones
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def read_yaml(path: Path, *, version: int) -> dict[str, Any] | None:
    """Read a mapping that carries `version:`; None when there is no file.

    A newer version is refused (the file stays). Raises `Unreadable` when the file is not such a
    mapping: the caller decides whether to move it aside (`move_aside`).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(path, error) from error
    try:
        document = parse_yaml(data)
    except ValueError as error:
        raise Unreadable(path, str(error)) from error
    if not isinstance(document, dict) or not isinstance(document.get("version"), int):
        raise Unreadable(path, "it is not a mapping with a `version`")
    if document["version"] > version:
        raise KecsError(
            f"`{path}` was written by a newer KECS (format {document['version']}, "
            f"this one reads up to {version})",
            "update KECS, or set KECS_HOME to another folder",
            ExitCode.CONFLICT,
        )
    return document


class Unreadable(KecsError):  # noqa: N818 - it names the file's state
    """A file of ours that cannot be understood."""

    def __init__(self, path: Path, why: str) -> None:
        first = why.splitlines()[0] if why else "it is empty"
        super().__init__(f"`{path}` cannot be read: {first}", "restore it, or move it away")
        self.path = path
        self.why = first


def move_aside(path: Path) -> Path:
    """Rename an unreadable file to `<name>.unreadable-<time>`; return the new path."""
    aside = path.with_name(f"{path.name}.unreadable-{time.strftime('%Y%m%dT%H%M%S')}")
    suffix = 1
    while aside.exists():
        suffix += 1
        aside = aside.with_name(f"{aside.name}-{suffix}")
    path.rename(aside)
    return aside


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` (flock) while the block runs; waits for other holders."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(path, error) from error
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> int | None:
    """Take the lock file `path` for the life of this process; None when another holds it.

    Returns the descriptor, which must stay open (it is not inherited by children).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def unusable(path: Path, error: OSError) -> KecsError:
    """Translate an `OSError` on `path` into what a person can act on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KecsError(f"no space left to write `{path}`", "free some space; nothing was changed")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return KecsError(
            f"`{path}` cannot be written: {error.strerror}",
            "make the folder yours and writable, or set KECS_HOME to another folder",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return KecsError(
            f"`{path}` cannot be used: {error.strerror}",
            "a file stands where a folder is needed; move it, or set KECS_HOME to another folder",
        )
    return KecsError(f"`{path}`: {error.strerror or error}", "check the disk and KECS_HOME")
