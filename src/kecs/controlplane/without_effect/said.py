"""One sentence for each setting of a document that a table names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def said(document: Mapping[str, Any], reasons: Mapping[str, str], where: str = "") -> Iterator[str]:
    """Yield `member<where>: reason` for each member of `reasons` that the document sets.

    A dot in a member leads into one: `linuxParameters.devices`. What is empty or false is not set.
    """
    for member, reason in reasons.items():
        value: Any = document
        for part in member.split("."):
            value = (value or {}).get(part)
        if value not in (None, "", [], {}, 0, "0", False):
            yield f"{member}{where}: {reason}"
