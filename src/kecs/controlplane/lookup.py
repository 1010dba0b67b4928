"""Finding the service or task that a person names on the command line. Pure."""

from __future__ import annotations

from kecs.ecs import arn
from kecs.ecs.model import Service, Task
from kecs.ecs.state import Reader
from kecs.errors import ExitCode, KecsError

SHORTEST_PREFIX = 8
"""Fewest characters of a task id that may stand for it (docs/design/contracts.md, 3)."""


def find_service(state: Reader, region: str, cluster: str, name: str) -> Service | None:
    """Return the service with this name or ARN, INACTIVE ones included."""
    try:
        named, service = arn.parse_service(name)
    except ValueError:
        return None
    return state.get(Service, region, named or cluster, service)


def find_task(state: Reader, region: str, cluster: str, name: str) -> Task | None:
    """Return the task with this id, unique prefix or ARN. Raises `KecsError` when several match."""
    try:
        named, task_id = arn.parse_task(name)
    except ValueError:
        return None
    place = named or cluster
    if (task := state.get(Task, region, place, task_id)) is not None:
        return task
    if len(task_id) < SHORTEST_PREFIX:
        return None
    found = [task for task in state.scan(Task, region, place) if task.id.startswith(task_id)]
    if len(found) > 1:
        raise KecsError(
            f"`{task_id}` begins the ids of {len(found)} tasks in cluster `{place}`",
            "give more of the id; `kecs ps` shows them",
            ExitCode.USAGE,
        )
    return found[0] if found else None


def nothing_found(state: Reader, region: str, cluster: str, name: str, what: str) -> KecsError:
    """Return the error that nothing is named so, naming where else there is such a thing."""
    regions = sorted(
        {row.region for row in state.scan(Service) if row.name == name and row.cluster == cluster}
        | {row.region for row in state.scan(Task) if row.id.startswith(name) and row.cluster == cluster}
    )
    clusters = sorted(
        {row.cluster for row in state.scan(Service, region) if row.name == name}
        | {
            row.cluster
            for row in state.scan(Task, region)
            if len(name) >= SHORTEST_PREFIX and row.id.startswith(name)
        }
    )
    if regions:
        hint = f"there is one in {', '.join(regions)}: add `--region {regions[0]}`"
    elif clusters:
        hint = f"there is `{clusters[0]}/{name}`"
    else:
        hint = "`kecs ps` shows services and tasks"
    return KecsError(f"there is no {what} `{cluster}/{name}` in {region}", hint, ExitCode.NOT_FOUND)
