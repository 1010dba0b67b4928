"""`kecs port-forward` (`kecs pf`): the table of its commands; each is a module of its own."""

from __future__ import annotations

import click

from kecs.cli.commands import Entry, Group

COMMANDS = {
    "start": Entry("kecs.cli.port_forward:start", "Open local ports to a service or a task."),
    "run": Entry("kecs.cli.forward_run:run", "Make the forwards be what a file says."),
    "down": Entry("kecs.cli.forward_down:down", "Stop all forwards that a file started."),
    "export": Entry("kecs.cli.forward_export:export", "Write the forwards as such a file."),
    "list": Entry("kecs.cli.forward_list:list_forwards", "List the forwards with their state."),
    "stop": Entry("kecs.cli.forward_stop:stop", "Close forwards and forget them."),
    "logs": Entry("kecs.cli.forward_logs:logs", "Print what happened to a forward."),
    "agent": Entry("kecs.cli.port_forward:agent", "Look after the agent that keeps the forwards."),
}
START = {
    "service": Entry("kecs.cli.forward_start:start_service", "To all ready tasks of a service."),
    "task": Entry("kecs.cli.forward_start:start_task", "To one task, by its id or its tags."),
}
AGENT = {
    "status": Entry("kecs.cli.forward_agent:status", "Show how the agent is; exit code 0 when it runs."),
    "stop": Entry("kecs.cli.forward_agent:stop", "Stop the agent; its ports are closed, its forwards kept."),
    "restart": Entry("kecs.cli.forward_agent:restart", "Start the agent anew, on the same ports."),
    "logs": Entry("kecs.cli.forward_agent:logs", "Print the agent's log."),
}


@click.group("port-forward", cls=Group, entries=COMMANDS)
def port_forward() -> None:
    """Forward ports of this machine to services and tasks.

    A background agent keeps the forwards: they outlive this command, the tasks behind them, and the agent
    itself. `kecs pf` is short for `kecs port-forward`.
    """


@click.group("start", cls=Group, entries=START)
def start() -> None:
    """Open local ports to a service or a task that has `assignPublicIp: ENABLED`."""


@click.group("agent", cls=Group, entries=AGENT)
def agent() -> None:
    """Look after the agent. It is started by the first forward and stopped with the instance."""
