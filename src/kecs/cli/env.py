"""`kecs env`: what a shell needs so that AWS SDKs and the AWS CLI talk to the instance."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kecs.cli import output as out
from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session

if TYPE_CHECKING:
    from kecs.client.instance import Instance

VARIABLES = (
    "AWS_ENDPOINT_URL_ECS",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
)
SHELLS = ("sh", "fish", "powershell")
_SECRET = "kecs"  # noqa: S105 - signatures are not checked; SDKs want some text


@command("env")
@click.option("--shell", type=click.Choice(SHELLS), help="Whose syntax; default: by $SHELL, else sh.")
@click.option("--unset", is_flag=True, help="Print what removes the variables again.")
@pass_session
def env(session: Session, shell: str | None, unset: bool) -> None:
    """Print what a shell needs for boto3, the AWS CLI and other AWS SDKs.

    \b
    sh, bash, zsh:  eval "$(kecs env)"
    fish:           kecs env | source
    PowerShell:     kecs env --shell powershell | Out-String | Invoke-Expression

    What it overrides is said on standard error. An AWS CLI before 2.13 and an SDK from before mid-2023 do not
    know AWS_ENDPOINT_URL_ECS: give them the URL themselves (`--endpoint-url`).
    """  # noqa: D301 - click reads \b
    syntax = shell or _shell_of(os.environ.get("SHELL", ""))
    if unset:
        out.line("\n".join(_unset(name, syntax) for name in VARIABLES))
        return
    from kecs.client import launch

    launch.ensure_controlplane(session.paths, session.note)
    values = variables(launch.require_running(session.paths))
    for text in overridden(values, os.environ):
        session.note(text)
    lines = [_set(name, value, syntax) for name, value in values.items()]
    if os.environ.get("AWS_SESSION_TOKEN"):
        lines.append(_unset("AWS_SESSION_TOKEN", syntax))
    out.line("\n".join(lines))
    session.note(f"older AWS CLIs: add `--endpoint-url {values['AWS_ENDPOINT_URL_ECS']}`")


def variables(instance: Instance) -> dict[str, str]:
    """Return the variables for an instance, in the order of `VARIABLES`."""
    return dict(
        zip(
            VARIABLES,
            (
                f"http://127.0.0.1:{instance.api_port}",
                instance.region,
                instance.region,
                instance.access_key_id,
                _SECRET,
            ),
            strict=True,
        )
    )


def overridden(values: dict[str, str], environment: os._Environ[str] | dict[str, str]) -> list[str]:
    """Say which variables have another value now; credentials are named, not shown."""
    found = []
    for name, value in values.items():
        was = environment.get(name)
        if was and was != value:
            secret = name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            found.append(f"overrides {name}" + ("" if secret else f" (was `{was}`)"))
    if environment.get("AWS_SESSION_TOKEN"):
        found.append("removes AWS_SESSION_TOKEN, which belongs to other keys")
    if environment.get("AWS_PROFILE"):
        found.append("AWS_PROFILE is set: some SDKs prefer it to these keys; unset it if they do")
    return found


def _shell_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return {"fish": "fish", "pwsh": "powershell"}.get(name, "sh")


def _set(name: str, value: str, shell: str) -> str:
    # Values are a URL, a region and letters: quoted all the same, for the day one is not.
    if shell == "fish":
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{escaped}'"
    if shell == "powershell":
        escaped = value.replace("'", "''")
        return f"$Env:{name} = '{escaped}'"
    escaped = value.replace("'", "'\\''")
    return f"export {name}='{escaped}'"


def _unset(name: str, shell: str) -> str:
    if shell == "fish":
        return f"set -e {name}"
    if shell == "powershell":
        return f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
    return f"unset {name}"
