"""`kecs start`."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.instance import Instance

_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}")
"""`us-east-1`, `us-gov-west-1`, `eusc-de-east-1`: as in the endpoint rules of botocore."""


@command("start")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Port of the ECS API on 127.0.0.1; 0 chooses one. The choice is kept. Default: 5373 if it is free.",
)
@click.option(
    "--runtime",
    metavar="NAME",
    help="What runs the tasks: `local`, processes of this machine (default), or `kubernetes`, pods.",
)
@click.option(
    "--kubeconfig",
    metavar="PATH",
    help="How the cluster is reached, chosen once. Default: $KUBECONFIG, else ~/.kube/config.",
)
@click.option(
    "--context",
    metavar="NAME",
    help="Context of the kubeconfig, chosen once. Default: its current one.",
)
@click.option(
    "--node-ports",
    metavar="FIRST-LAST",
    help="Where node ports of public services are taken from. The choice is kept. Default: 30000-32767.",
)
@click.option(
    "--metrics-address",
    metavar="ADDR:PORT",
    help="Where the agent serves metrics for Prometheus, or `off`. The choice is kept. Default: off.",
)
@click.option(
    "--region",
    metavar="REGION",
    help="Region of the instance, chosen once. Default: $AWS_REGION, $AWS_DEFAULT_REGION, else us-east-1.",
)
@click.option(
    "--require-key/--no-require-key",
    default=None,
    help="Refuse requests without the instance's own access key id.",
)
@rows_option("json", "yaml")
@pass_session
def start(session: Session, /, output: str | None, **wishes: Any) -> None:
    """Start the instance and return when its API answers.

    The first start creates it. On one that runs it only says so; other settings than the running ones are a
    conflict (exit code 4).
    """
    began = time.monotonic()
    check_runtime(wishes["runtime"])
    check_region(wishes["region"])
    check_node_ports(wishes["node_ports"])
    check_metrics_address(wishes["metrics_address"])
    check_cluster_options(session, wishes)
    from kecs import settings
    from kecs.client import lifetime

    outcome = lifetime.start(
        session.paths,
        lifetime.Wishes(
            **wishes,
            knobs=settings.knobs(session.settings),
            environment=dict(os.environ),
            directory=_here(),
        ),
        session.note,
    )
    instance = outcome.instance
    if outcome.already:
        session.note(f"the instance `{instance.name}` is running already")
        _tell_of_another_folder(session, instance)
    else:
        session.note(f"ready after {time.monotonic() - began:.1f} s")
    row = {"name": instance.name, "state": "running", "api": f"http://127.0.0.1:{instance.api_port}"}
    if output:
        out.document(row | {"apiPort": instance.api_port, "region": instance.region}, output)
    else:
        out.line(f"{row['name']}  {row['api']}")
    if not outcome.already:
        flag = "" if instance.name == "default" else f" --instance {instance.name}"
        session.note(f'next: eval "$(kecs env{flag})"')


def check_runtime(runtime: str | None) -> None:
    """Raise a usage error for a runtime that is not built."""
    from kecs.client.lifetime import RUNTIMES

    if runtime is not None and runtime not in RUNTIMES:
        built = ", ".join(f"`{name}`" for name in RUNTIMES)
        raise KecsError(f"the runtime `{runtime}` is not built", f"built so far: {built}", ExitCode.USAGE)


def check_node_ports(text: str | None) -> None:
    """Raise a usage error for what is no range of ports."""
    if text is None:
        return
    from kecs.ecs import node_ports

    try:
        node_ports.parse(text)
    except ValueError as error:
        raise KecsError(
            str(error), f"write it as first and last port: `{node_ports.DEFAULT_RANGE}`", ExitCode.USAGE
        ) from error


def check_metrics_address(text: str | None) -> None:
    """Raise a usage error for what is no address and port."""
    if text is not None:
        from kecs.client import metrics_address

        metrics_address.wanted(text, None)


def check_cluster_options(session: Session, wishes: dict[str, Any]) -> None:
    """Raise a usage error where a new instance without a cluster is given one's options."""
    given = [name for name in ("kubeconfig", "context", "node_ports") if wishes[name] is not None]
    if not given or wishes["runtime"] == "kubernetes" or session.paths.instance_file.exists():
        return
    option = f"--{given[0].replace('_', '-')}"
    raise KecsError(
        f"`{option}` is for instances on a cluster",
        f"add `--runtime kubernetes`, or leave `{option}` out",
        ExitCode.USAGE,
    )


def check_region(region: str | None) -> None:
    """Raise a usage error for what cannot be a region."""
    if region is not None and not _REGION.fullmatch(region):
        raise KecsError(
            f"`{region}` is no region", "write it as AWS does, such as `us-east-1`", ExitCode.USAGE
        )


def _tell_of_another_folder(session: Session, instance: Instance) -> None:
    """Say where local tasks run: commands with relative paths fail in any other folder."""
    if instance.runtime == "local" and instance.directory != _here():
        session.note(
            f"its tasks run in `{instance.directory}`; to have them run here: "
            f"{session.command('stop')}, then {session.command('start')}"
        )


def _here() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError as error:
        raise KecsError(
            "the current folder was deleted", "change to one that exists: local tasks run in it"
        ) from error
