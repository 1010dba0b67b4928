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
from kecs.paths import instance_flag

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
    help="What runs the tasks, chosen once: `local`, processes of this machine; `k3d`, pods of a cluster "
    "that KECS makes in Docker; `kubernetes`, pods of yours; `auto`, k3d where it and Docker answer, else "
    "local. Default: $KECS_RUNTIME, else `auto`.",
)
@click.option(
    "--kubeconfig",
    metavar="PATH",
    help="How your cluster is reached, chosen once. Default: $KUBECONFIG, else ~/.kube/config.",
)
@click.option(
    "--context",
    metavar="NAME",
    help="Context of the kubeconfig, chosen once. Default: its current one.",
)
@click.option(
    "--node-ports",
    metavar="N|FIRST-LAST",
    help="On your cluster: where node ports of public services are taken from, default 30000-32767; the "
    "choice is kept. On k3d: how many, or which, are published on 127.0.0.1, chosen once; default: 100.",
)
@click.option(
    "--load-balancer",
    is_flag=True,
    default=None,
    help="Give the k3d cluster k3d's load balancer: `port-forward start --publish` needs it. Chosen once.",
)
@click.option(
    "--agents",
    type=click.IntRange(0, 100),
    metavar="N",
    help="Nodes of the k3d cluster beside its server, chosen once. Default: 0.",
)
@click.option(
    "--k3s-image",
    metavar="IMAGE",
    help="Image of the k3d cluster's nodes, chosen once. Default: k3d's own.",
)
@click.option(
    "--k3s-arg",
    "k3s_args",
    multiple=True,
    metavar="ARG@NODES",
    help="Passed on to `k3d cluster create`, as often as it is given; chosen once.",
)
@click.option(
    "--registry",
    "registries",
    multiple=True,
    metavar="NAME",
    help="Registry of `k3d registry create` that the k3d cluster may pull from; chosen once.",
)
@click.option(
    "--import",
    "import_images",
    type=click.Choice(("auto", "never")),
    help="Whether images that only the local Docker has are brought into the k3d cluster; default: auto. "
    "The choice is kept.",
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

    The first start creates it. On one that runs it only says so, and repairs its k3d cluster; other settings
    than the running ones are a conflict (exit code 4).
    """
    began = time.monotonic()
    check_runtime(wishes["runtime"])
    check_region(wishes["region"])
    check_runtime(session.settings.runtime)
    check_metrics_address(wishes["metrics_address"])
    from kecs import settings
    from kecs.client import lifetime
    from kecs.client.wishes import Wishes

    for several in ("k3s_args", "registries"):
        wishes[several] = wishes[several] or None
    outcome = lifetime.start(
        session.paths,
        Wishes(
            **wishes,
            default_runtime=session.settings.runtime,
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
        out.document(
            row | {"apiPort": instance.api_port, "region": instance.region, "runtime": instance.runtime},
            output,
        )
    else:
        out.line(f"{row['name']}  {row['api']}")
    if not outcome.already:
        session.note(f'next: eval "$(kecs env{instance_flag(instance.name)})"')


def check_runtime(runtime: str | None) -> None:
    """Raise a usage error for a runtime that is not built."""
    from kecs.client.choice import RUNTIMES

    if runtime is not None and runtime not in RUNTIMES:
        built = ", ".join(f"`{name}`" for name in RUNTIMES)
        raise KecsError(f"the runtime `{runtime}` is not built", f"built so far: {built}", ExitCode.USAGE)


def check_metrics_address(text: str | None) -> None:
    """Raise a usage error for what is no address and port."""
    if text is not None:
        from kecs.client import metrics_address

        metrics_address.wanted(text, None)


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
