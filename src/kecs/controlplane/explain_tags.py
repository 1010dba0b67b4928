"""What `kecs explain` says of the tasks that have certain tags, for a forward that finds its task so. Pure.

Called by `kecs.controlplane.admin`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kecs.client.admin_types import Explain
from kecs.controlplane import explain_advice, explain_events, explain_pods
from kecs.controlplane.explain_words import not_listening, not_public, stopped
from kecs.ecs.model import Task
from kecs.ecs.state import Reader

LAST_NAMED = 5
"""How many of the tasks that match are named."""


def explain_tags(state: Reader, region: str, cluster: str, tags: Mapping[str, str]) -> Explain:
    """Explain which tasks of a cluster have all of `tags`; that there is none is an answer, too."""
    there = sorted(state.scan(Task, region, cluster), key=lambda task: task.created_at, reverse=True)
    found = [task for task in there if tags.items() <= task.tags.items()]
    alive = [task for task in found if task.last_status != "STOPPED"]
    words = ", ".join(f"{key}={value}" for key, value in tags.items())
    return Explain(
        title=f"tasks with the tags {words} in the cluster {cluster} in {region}",
        facts=[
            *(_matching(alive) if alive else _none(words, cluster, there)),
            *explain_pods.without_a_place(alive),
            *not_listening(alive),
            *(
                f"task {task.id[:8]}: {not_public(task.network_mode == 'awsvpc')}"
                for task in alive
                if not task.public
            ),
            *stopped(found),
        ],
        without_effect=[],
        advice=list(_advice(cluster, tags, found, alive)),
        timeline=explain_events.of_tasks(found),
        region=region,
        cluster=cluster,
    )


def _matching(alive: list[Task]) -> Iterator[str]:
    named = ", ".join(f"{task.id[:8]} ({task.last_status})" for task in alive[:LAST_NAMED])
    more = f" and {len(alive) - LAST_NAMED} more" if len(alive) > LAST_NAMED else ""
    which = "one task matches" if len(alive) == 1 else f"{len(alive)} tasks match, the newest first"
    yield f"{which}: {named}{more}"


def _none(words: str, cluster: str, there: Iterable[Task]) -> Iterator[str]:
    alive = [task for task in there if task.last_status != "STOPPED"]
    yield f"no task in the cluster {cluster} has the tags {words}"
    known = sorted({f"{key}={value}" for task in alive for key, value in task.tags.items()})
    if known:
        yield f"the tasks there have these tags: {', '.join(known)}"
    elif alive:
        yield f"the {len(alive)} tasks there have no tags" if len(alive) > 1 else "the task there has no tags"


def _advice(cluster: str, tags: Mapping[str, str], found: list[Task], alive: list[Task]) -> Iterator[str]:
    yield from explain_advice.for_ports(alive)
    yield from explain_advice.for_failures(found)
    if alive:
        return
    given = " ".join(f"key={key},value={value}" for key, value in tags.items())
    yield (
        f"run one by `aws ecs run-task --cluster {cluster} --task-definition FAMILY --tags {given} "
        "--network-configuration …`"
    )
    yield "the tasks of a service have tags when it was created with `--propagate-tags` and tags"
