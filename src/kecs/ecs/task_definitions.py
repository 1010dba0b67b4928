"""The operations on task definitions.

A revision is ACTIVE, then INACTIVE (deregistered), then DELETE_IN_PROGRESS until nothing uses it any
more, when the control plane removes it. Revision numbers of a family only grow, even after that.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kecs.ecs import arn, capabilities, names, pages, pod_rules, tags, task_definition_rules
from kecs.ecs.context import Context
from kecs.ecs.errors import ClientException, InvalidParameterException
from kecs.ecs.model import Family, TaskDefinition
from kecs.ecs.state import Reader, Tx

DELETE_AT_MOST = 10
NOT_FOUND = (
    "The specified task definition does not exist. Specify a valid account, family, revision and try again."
)


def register_task_definition(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """RegisterTaskDefinition: each call makes a revision."""
    name = params["family"]
    if not name:
        raise ClientException("Family should not be null or empty.")
    if not names.is_name(name):
        raise ClientException("Family contains invalid characters.")
    definition = task_definition_rules.filled(params)
    task_definition_rules.check(definition)
    if ctx.runtime.runs_pods:
        pod_rules.check(definition)
    definition["requiresAttributes"] = capabilities.required_attributes(definition)
    definition["compatibilities"] = capabilities.compatibilities(definition)
    family = tx.get(Family, ctx.region, name)
    row = TaskDefinition(
        region=ctx.region,
        family=name,
        revision=family.last_revision + 1 if family else 1,
        definition=definition,
        registered_at=ctx.now,
        tags=tags.from_list(params.get("tags", ())),
    )
    tx.put(Family(region=ctx.region, name=name, last_revision=row.revision))
    tx.put(row)
    return _with_tags({"taskDefinition": describe(row, ctx)}, row)


def deregister_task_definition(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DeregisterTaskDefinition: the revision must be named; it becomes INACTIVE."""
    family, revision = _parse(params["taskDefinition"], ctx)
    if revision is None:
        raise ClientException("Revision is missing.")
    row = tx.get(TaskDefinition, ctx.region, family, revision)
    if row is None:
        raise ClientException("Unable to describe task definition.")
    if row.status == "ACTIVE":
        row = msgspec.structs.replace(row, status="INACTIVE", deregistered_at=ctx.now)
        tx.put(row)
    elif row.status == "DELETE_IN_PROGRESS":
        raise InvalidParameterException(
            "The specified task definition is being deleted and cannot be deregistered."
        )
    return {"taskDefinition": describe(row, ctx)}


def delete_task_definitions(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DeleteTaskDefinitions: INACTIVE revisions become DELETE_IN_PROGRESS."""
    asked = params["taskDefinitions"]
    if not 1 <= len(asked) <= DELETE_AT_MOST:
        raise InvalidParameterException(
            f"You must specify between 1 and {DELETE_AT_MOST} task definitions to delete."
        )
    deleted, failures = [], []
    for text in asked:
        family, revision = _parse(text, ctx)
        row = tx.get(TaskDefinition, ctx.region, family, revision) if revision is not None else None
        if reason := _why_not_deletable(row, revision):
            full = row and arn.task_definition_arn(ctx.region, row.family, row.revision, ctx.account)
            failures.append({"arn": full or text, "reason": reason})
            continue
        assert row is not None
        if row.status == "INACTIVE":
            row = msgspec.structs.replace(row, status="DELETE_IN_PROGRESS", delete_requested_at=ctx.now)
            tx.put(row)
        deleted.append(describe(row, ctx))
    return {"taskDefinitions": deleted, "failures": failures}


def describe_task_definition(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DescribeTaskDefinition: of a family alone the latest ACTIVE revision."""
    row = find(tx, params["taskDefinition"], ctx)
    if row is None:
        raise ClientException("Unable to describe task definition.")
    answer: dict[str, Any] = {"taskDefinition": describe(row, ctx)}
    if "TAGS" in params.get("include", ()):
        answer["tags"] = tags.to_list(row.tags)
    return answer


def list_task_definitions(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """ListTaskDefinitions: by default the ACTIVE ones, oldest revision first."""
    prefix, status = params.get("familyPrefix"), params.get("status", "ACTIVE")
    arns = [
        arn.task_definition_arn(ctx.region, row.family, row.revision, ctx.account)
        for row in tx.scan(TaskDefinition, ctx.region)
        if row.status == status and prefix in (None, row.family)
    ]
    descending = params.get("sort", "ASC") == "DESC"
    page, token = pages.page("ListTaskDefinitions", arns, params, descending=descending)
    return {"taskDefinitionArns": page, **({"nextToken": token} if token else {})}


def list_task_definition_families(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """ListTaskDefinitionFamilies: ACTIVE means to have an ACTIVE revision; default all."""
    status = params.get("status", "ALL")
    active: dict[str, bool] = {}
    for row in tx.scan(TaskDefinition, ctx.region):
        active[row.family] = active.get(row.family, False) or row.status == "ACTIVE"
    families = [
        family
        for family, is_active in active.items()
        if family.startswith(params.get("familyPrefix", ""))
        and (status == "ALL" or is_active == (status == "ACTIVE"))
    ]
    page, token = pages.page("ListTaskDefinitionFamilies", families, params)
    return {"families": page, **({"nextToken": token} if token else {})}


def find(tx: Reader, identifier: str, ctx: Context) -> TaskDefinition | None:
    """Return the revision that an identifier means, whatever its status; None when there is none.

    A family alone means its latest ACTIVE revision. Raises ClientException for what is no identifier.
    """
    family, revision = _parse(identifier, ctx)
    if revision is not None:
        return tx.get(TaskDefinition, ctx.region, family, revision)
    rows = [row for row in tx.scan(TaskDefinition, ctx.region, family) if row.status == "ACTIVE"]
    return max(rows, key=lambda row: row.revision, default=None)


def require_active(tx: Reader, identifier: str, ctx: Context) -> TaskDefinition:
    """Return the ACTIVE revision to run; raises ClientException."""
    row = find(tx, identifier, ctx)
    if row is None:
        raise ClientException("TaskDefinition not found.")
    if row.status != "ACTIVE":
        raise ClientException("TaskDefinition is inactive")
    return row


def describe(row: TaskDefinition, ctx: Context) -> dict[str, Any]:
    """Return the API's TaskDefinition."""
    described = {
        "taskDefinitionArn": arn.task_definition_arn(row.region, row.family, row.revision, ctx.account),
        "family": row.family,
        "revision": row.revision,
        "status": row.status,
        **row.definition,
        "registeredAt": round(row.registered_at, 3),
        "registeredBy": f"arn:{arn.partition(row.region)}:iam::{ctx.account}:root",
    }
    if row.deregistered_at is not None:
        described["deregisteredAt"] = round(row.deregistered_at, 3)
    if row.delete_requested_at is not None:
        described["deleteRequestedAt"] = round(row.delete_requested_at, 3)
    return described


def _parse(identifier: str, ctx: Context) -> tuple[str, int | None]:
    try:
        family, revision = arn.parse_task_definition(identifier)
        if arn.looks_like_arn(identifier):
            parsed = arn.parse(identifier)
            if (parsed.region, parsed.account) != (ctx.region, ctx.account):
                return "", revision  # another account's: there is no such family here
    except ValueError as err:
        raise ClientException(str(err)) from err
    return family, revision


def _why_not_deletable(row: TaskDefinition | None, revision: int | None) -> str | None:
    if revision is None:
        return (
            "The specified task definition identifier is invalid. Specify a valid name or ARN and try again."
        )
    if row is None:
        return NOT_FOUND
    if row.status == "ACTIVE":
        return (
            "The specified task definition is still in ACTIVE status. Please deregister the target and "
            "try again."
        )
    return None


def _with_tags(answer: dict[str, Any], row: TaskDefinition) -> dict[str, Any]:
    return {**answer, "tags": tags.to_list(row.tags)} if row.tags else answer
