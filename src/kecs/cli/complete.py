"""What a shell completes: instances, forwards, services and tasks. Cheap, silent, and starting nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from kecs.cli.session import Session
from kecs.errors import KecsError

TIMEOUT = 0.5
"""Seconds that a person who pressed Tab waits for a daemon at most."""


def instances(incomplete: str) -> list[CompletionItem]:
    """Complete the name of an instance."""
    with contextlib.suppress(KecsError, OSError):
        folder = Session().settings.home / "instances"
        return _items(sorted(child.name for child in folder.iterdir()), incomplete)
    return []


def forwards(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a forward, or its id."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(KecsError):
        from kecs.client.agent import AgentClient

        with AgentClient(ctx.ensure_object(Session).paths, TIMEOUT) as agent:
            rows = agent.ask("forward.list")["forwards"]
    by = "id" if incomplete.startswith("pf-") else "name"
    return _items([row[by] for row in rows], incomplete)


def targets(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `cluster/service` or `cluster/task`, what the command takes; with tags the cluster."""
    return _targets(ctx, ctx.info_name or "", incomplete)


def explained(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete what `kecs explain` is told: a service, a task or a forward, as the word before it says."""
    kind = ctx.params.get("kind") or ""
    return forwards(ctx, param, incomplete) if kind == "forward" else _targets(ctx, kind, incomplete)


def _targets(ctx: click.Context, kind: str, incomplete: str) -> list[CompletionItem]:
    with contextlib.suppress(KecsError):
        from kecs.client.controlplane import ControlPlaneClient

        answer = ControlPlaneClient(ctx.ensure_object(Session).paths, TIMEOUT).ps()

        def names() -> Iterator[str]:
            if ctx.params.get("tags"):
                yield from sorted(
                    {one.cluster for one in answer.services} | {one.cluster for one in answer.tasks}
                )
                return
            if kind != "task":
                yield from (f"{one.cluster}/{one.service}" for one in answer.services)
            if kind != "service":
                yield from (f"{one.cluster}/{one.task_id[:8]}" for one in answer.tasks)

        return _items(list(names()), incomplete)
    return []


def _items(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
