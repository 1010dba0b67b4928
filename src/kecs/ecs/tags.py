"""Tags: their limits, and how tasks come by theirs.

Limits: Amazon ECS Developer Guide, "Tagging your Amazon ECS resources". A row keeps its tags as a
dictionary in the order they were given; the API shows a list of key and value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kecs.ecs.errors import InvalidParameterException

LIMIT = 50
"""Tags that a user may give a resource; AWS's own (`aws:`) do not count."""
KEY_LENGTH, VALUE_LENGTH = 128, 256
RESERVED = "aws:"
_ALLOWED = re.compile(r"[\w\s.:/=+\-@]*")
"""Letters, digits and spaces of any script, and these: `TagKey` of the model."""

Tags = dict[str, str]


def from_list(given: Iterable[Mapping[str, str]]) -> Tags:
    """Return the tags of a request; raises InvalidParameterException."""
    tags: Tags = {}
    for tag in given:
        key, value = tag.get("key", ""), tag.get("value", "")
        _check(key, value)
        if key in tags:
            raise InvalidParameterException(
                f"Duplicate tag keys found: '{key}'. Each tag key must be unique."
            )
        tags[key] = value
    check_count(tags)
    return tags


def to_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as the API shows them."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def check_count(tags: Mapping[str, str]) -> None:
    """Raise InvalidParameterException when a resource would have too many tags."""
    if sum(not is_reserved(key) for key in tags) > LIMIT:
        raise InvalidParameterException(f"The maximum number of tags for a resource is {LIMIT}.")


def is_reserved(key: str) -> bool:
    """Tell whether only AWS may set or remove the tag with this key, in any case of its letters."""
    return key.lower().startswith(RESERVED)


def managed(cluster: str, service: str | None) -> Tags:
    """Return the tags that `enableECSManagedTags` gives a task."""
    named = {"aws:ecs:serviceName": service} if service else {}
    return {"aws:ecs:clusterName": cluster, **named}


def of_task(given: Mapping[str, str], inherited: Mapping[str, str], ecs_managed: Mapping[str, str]) -> Tags:
    """Return a new task's tags: what was inherited, over it what was given for it, and ECS's own."""
    own = {key: value for key, value in inherited.items() if not is_reserved(key)}
    return {**own, **given, **ecs_managed}


def _check(key: str, value: str) -> None:
    if not 1 <= len(key) <= KEY_LENGTH:
        raise InvalidParameterException(f"A tag key must have 1 to {KEY_LENGTH} characters: '{key[:200]}'.")
    if len(value) > VALUE_LENGTH:
        raise InvalidParameterException(
            f"A tag value can have up to {VALUE_LENGTH} characters: the one of '{key}' has {len(value)}."
        )
    if is_reserved(key) or is_reserved(value):
        raise InvalidParameterException(
            f"Tag keys and values cannot begin with '{RESERVED}', which is reserved for AWS use: '{key}'."
        )
    for text in (key, value):
        if not _ALLOWED.fullmatch(text):
            raise InvalidParameterException(
                f"A tag contains characters that are not allowed: '{text}'. Letters, numbers, spaces and "
                "_ . : / = + - @ are."
            )
