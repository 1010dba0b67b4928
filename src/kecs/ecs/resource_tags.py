"""TagResource, UntagResource and ListTagsForResource, for all kinds of resources that KECS has."""

from __future__ import annotations

from typing import Any

import msgspec

from kecs.ecs import arn, tags
from kecs.ecs.context import Context
from kecs.ecs.errors import (
    ClientException,
    ClusterNotFoundException,
    InvalidParameterException,
    ModelledError,
    ResourceNotFoundException,
    ServiceNotFoundException,
)
from kecs.ecs.model import Cluster, Service, Task, TaskDefinition
from kecs.ecs.state import Reader, Tx

Tagged = Cluster | Service | Task | TaskDefinition
_UNTAG_AT_MOST = 50
_OVER = {
    Cluster: ("INACTIVE", "The specified cluster is inactive. Specify an active cluster and try again."),
    Service: ("INACTIVE", "The specified service is inactive. Specify an active service and try again."),
    Task: ("STOPPED", "The specified task is stopped. Specify a running task and try again."),
    TaskDefinition: (
        "DELETE_IN_PROGRESS",
        "The specified task definition is being deleted. Specify another task definition and try again.",
    ),
}
"""The status in which a resource of a kind has no tags any more, and what ECS says then."""


def tag_resource(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """TagResource: given tags are added, or replace those of the same key."""
    row = _require(tx, params["resourceArn"], ctx)
    given = tags.from_list(params["tags"])
    # One that is replaced goes to the end with the new ones, so that the last request is read as it was.
    combined = {key: value for key, value in row.tags.items() if key not in given} | given
    tags.check_count(combined)
    tx.put(_with_tags(row, combined))
    return {}


def untag_resource(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """UntagResource: keys that are not there are no error."""
    row = _require(tx, params["resourceArn"], ctx)
    keys = params["tagKeys"]
    if len(keys) > _UNTAG_AT_MOST:
        raise InvalidParameterException(f"tagKeys can have up to {_UNTAG_AT_MOST} items.")
    for key in keys:
        if tags.is_reserved(key):
            raise InvalidParameterException(
                f"Tags that begin with '{tags.RESERVED}' cannot be removed: '{key}'."
            )
    tx.put(_with_tags(row, {key: value for key, value in row.tags.items() if key not in keys}))
    return {}


def list_tags_for_resource(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """ListTagsForResource."""
    return {"tags": tags.to_list(_require(tx, params["resourceArn"], ctx).tags)}


def _with_tags(row: Tagged, changed: tags.Tags) -> Tagged:
    if isinstance(row, Task):
        return msgspec.structs.replace(row, tags=changed, version=row.version + 1)
    return msgspec.structs.replace(row, tags=changed)


def _require(tx: Reader, text: str, ctx: Context) -> Tagged:
    """Return the row that an ARN names; raises what ECS raises for its kind."""
    try:
        parsed = arn.parse(text)
    except ValueError as err:
        raise InvalidParameterException(f"Invalid resource ARN: {text}") from err
    row = None
    if (parsed.region, parsed.account) == (ctx.region, ctx.account):
        row = _find(tx, parsed)
    if row is None:
        raise _missing(parsed.kind, text)
    status, message = _OVER[type(row)]
    if (row.last_status if isinstance(row, Task) else row.status) == status:
        raise InvalidParameterException(message)
    return row


def _find(tx: Reader, parsed: arn.Arn) -> Tagged | None:
    region, path = parsed.region, parsed.path
    if parsed.kind == "cluster" and len(path) == 1:
        return tx.get(Cluster, region, path[0])
    if parsed.kind == "service" and len(path) == 2:
        return tx.get(Service, region, *path)
    if parsed.kind == "task" and len(path) == 2:
        return tx.get(Task, region, *path)
    if parsed.kind == "task-definition" and len(path) == 1:
        family, _, revision = path[0].partition(":")
        if revision.isascii() and revision.isdigit():
            return tx.get(TaskDefinition, region, family, int(revision))
    return None


def _missing(kind: str, text: str) -> ModelledError:
    if kind == "cluster":
        return ClusterNotFoundException()
    if kind == "service":
        return ServiceNotFoundException()
    if kind == "task-definition":
        return ClientException("Unable to describe task definition.")
    if kind == "task":
        return InvalidParameterException("The referenced task was not found.")
    if kind in ("container-instance", "task-set", "capacity-provider"):
        return ResourceNotFoundException(f"The specified resource was not found: {text}")
    return InvalidParameterException(f"Invalid resource ARN: {text}")
