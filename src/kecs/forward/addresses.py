"""Which addresses a forward listens on, as far as two forwards may be in each other's way. Pure."""

from __future__ import annotations

from collections.abc import Sequence

LOOPBACK = frozenset({"127.0.0.1", "::1"})
"""What is listened on when no address is given."""
PUBLISHED = ("127.0.0.1",)
"""Where Docker listens for the port of `publish`."""
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


def collide(one: Sequence[str], other: Sequence[str]) -> bool:
    """Tell whether two forwards with these `address` lists cannot have the same port."""
    first, second = frozenset(one) or LOOPBACK, frozenset(other) or LOOPBACK
    return bool(first & second or (first | second) & EVERYWHERE)
