"""A container's `user`: `name`, `uid`, and either with `:group` (Docker's forms), on this machine."""

from __future__ import annotations

import grp
import os
import pwd
from typing import NamedTuple


class User(NamedTuple):
    """Whom a container runs as."""

    uid: int
    gid: int
    groups: list[int]
    name: str | None = None
    """None for a uid without an entry."""
    home: str | None = None


class NoSuchUser(Exception):  # noqa: N818 - it says what is the case
    """There is no such user or group here, or this process may not become it; the message says which."""


def resolve(text: str) -> User | None:
    """Return the user to change to; None when that is who runs KECS already.

    Raises `NoSuchUser`. Only root can run as somebody else.
    """
    user, _, group = text.partition(":")
    entry = _entry(user)
    if entry is None and not user.isdigit():
        raise NoSuchUser(f'there is no user "{user}" on this machine')
    uid = entry.pw_uid if entry is not None else int(user)
    gid = _gid(group) if group else (entry.pw_gid if entry is not None else 0)
    if uid == os.getuid() and (not group or gid == os.getgid()):
        return None
    if os.getuid() != 0:
        raise NoSuchUser(f'only root can run a container as user "{text}" in the local runtime')
    if entry is None:
        return User(uid, gid, [gid])
    return User(uid, gid, os.getgrouplist(entry.pw_name, gid), entry.pw_name, entry.pw_dir)


def _entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None


def _gid(group: str) -> int:
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise NoSuchUser(f'there is no group "{group}" on this machine') from None
