"""`kecs port-forward agent`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.instance import Desired, Instance


@command("status")
@rows_option("json", "yaml")
@pass_session
def status(session: Session, output: str | None) -> None:
    """Show how the agent is. Exit code 0: it runs, 5: it does not. Starts nothing."""
    from kecs.client import instance
    from kecs.client.agent import AgentClient, NotRunning

    described = instance.require(session.paths)
    with AgentClient(session.paths) as agent:
        try:
            answer = agent.ask("agent.status")
        except NotRunning as error:
            raise KecsError(
                "the agent is not running", _why(session, described), ExitCode.UNREACHABLE
            ) from error
    for warning in answer.get("warnings", ()):
        session.warn(warning)
    if output:
        out.document(answer, output)
        return
    for name, text in (
        ("agent", f"pid {answer['pid']}  version {answer['version']}"),
        ("forwards", str(answer["forwards"])),
        ("control plane", answer["controlplane"]),
        ("memory", out.size(answer["memory"])),
        ("up", out.ago(answer["startedAt"])),
        ("metrics", answer.get("metrics")),
    ):
        if text is None:
            continue
        out.line(f"{name:<14} {text}")


@command("stop")
@pass_session
def stop(session: Session) -> None:
    """Stop the agent: its ports are closed, its forwards are kept.

    It stays away until `port-forward start`, `port-forward agent restart` or `kecs start`.
    """
    from kecs.client import instance, launch

    instance.change(session.paths, lambda was: _with(was, "stopped", was.metrics_address))
    if launch.stop_agent(session.paths):
        session.note("the agent is stopped")
    else:
        session.note("the agent was not running")


@command("restart")
@click.option(
    "--metrics-address",
    metavar="ADDR:PORT",
    help="Where it serves metrics for Prometheus from now on, or `off`. The choice is kept.",
)
@pass_session
def restart(session: Session, metrics_address: str | None) -> None:
    """Start the agent anew, or for the first time; its forwards are back on the same ports."""
    from kecs.client import instance, launch
    from kecs.client.agent import AgentClient
    from kecs.client.metrics_address import wanted

    paths = session.paths
    wanted(metrics_address, None)
    launch.require_running(paths)
    instance.change(paths, lambda was: _with(was, "running", wanted(metrics_address, was.metrics_address)))
    launch.ensure_controlplane(paths, session.note)
    launch.restart_agent(paths)
    with AgentClient(paths) as agent:
        answer = agent.ask("agent.status")
    for warning in answer.get("warnings", ()):
        session.warn(warning)
    served = answer.get("metrics")
    session.note(f"the agent runs; metrics: {served}" if served else "the agent runs")


@command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@pass_session
def logs(session: Session, follow: bool) -> None:
    """Print the agent's log; the same as `kecs logs --daemon agent`."""
    from kecs.cli import log_files
    from kecs.client import instance

    instance.require(session.paths)
    log_files.show(session.paths.agent_log, follow=follow)


def _why(session: Session, instance: Instance) -> str:
    if instance.desired == "stopped":
        return f"the instance is stopped: {session.command('start')}"
    if instance.agent == "stopped":
        return f"it was stopped by hand: {session.command('port-forward agent restart')}"
    return f"`kecs port-forward start` starts it, and so does {session.command('port-forward agent restart')}"


def _with(instance: Instance, agent: Desired, metrics_address: str | None) -> Instance:
    import msgspec

    return msgspec.structs.replace(instance, agent=agent, metrics_address=metrics_address)
