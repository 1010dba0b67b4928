"""Pages of a list: `maxResults` and an opaque `nextToken`.

A token names the last item given, not a position: items that came or went between two pages are
neither repeated nor skipped. It also names what was asked, so that it fits no other question.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from kecs.ecs.errors import InvalidParameterException

LARGEST = 100
"""ECS gives at most 100 items a page, in every list."""
DEFAULTS = {"ListServices": 10}
"""Items a page where nothing was asked; 100 for the operations that are not named (API reference)."""


def page(
    operation: str, items: list[str], params: dict[str, Any], *, descending: bool = False
) -> tuple[list[str], str | None]:
    """Return one page of `items`, which are unique, and the token of the next page or None.

    `params` are the request's. Items are ordered by `order_key`. Raises InvalidParameterException.
    """
    size = params.get("maxResults", DEFAULTS.get(operation, LARGEST))
    if not 1 <= size <= LARGEST:
        raise InvalidParameterException(f"maxResults must be between 1 and {LARGEST}, inclusive.")
    question = _question(operation, params)
    ordered = sorted(items, key=order_key, reverse=descending)
    if token := params.get("nextToken"):
        last = order_key(_open(token, question))
        ordered = [
            item for item in ordered if (order_key(item) < last if descending else order_key(item) > last)
        ]
    if len(ordered) <= size:
        return ordered, None
    return ordered[:size], _seal(ordered[size - 1], question)


def order_key(item: str) -> tuple[str, int]:
    """Order by text, and revisions of a family by number (`web:2` before `web:10`)."""
    head, colon, number = item.rpartition(":")
    return (head, int(number)) if colon and number.isdigit() else (item, 0)


def _question(operation: str, params: dict[str, Any]) -> str:
    asked = {key: value for key, value in params.items() if key not in ("nextToken", "maxResults")}
    text = json.dumps([operation, asked], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _seal(last: str, question: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([question, last]).encode()).decode()


def _open(token: str, question: str) -> str:
    try:
        asked, last = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError) as err:
        raise InvalidParameterException("Invalid token.") from err
    if asked != question or not isinstance(last, str):
        raise InvalidParameterException("Invalid token.")
    return last
