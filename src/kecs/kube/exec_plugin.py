"""Credential plugins: a program of the kubeconfig that prints who we are, until when.

Used by `kecs.kube.access` only. Blocking: it runs the program. Nothing of its standard output is ever put
into a message. Source:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins and
client-go, plugin/pkg/client/auth/exec/exec.go.
"""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kecs.errors import ExitCode, KecsError
from kecs.kube.errors import NoCredentials
from kecs.kube.kubeconfig import Plugin

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
TIMEOUT = 60.0
"""Seconds for one run: some ask a cloud's API, or a browser."""


class _Status(msgspec.Struct, rename="camel"):
    expiration_timestamp: datetime.datetime | None = None
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""


class _Credential(msgspec.Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    status: _Status | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """What a plugin gave."""

    token: str = field(repr=False)
    certificate: str = field(repr=False)
    """PEM, with the key in `key`; empty when it gave a token only."""
    key: str = field(repr=False)
    expires: float | None
    """Unix time; None: it did not say, so until the server answers 401."""


def check(plugin: Plugin) -> None:
    """Raise `KecsError` for a plugin that a program without a terminal cannot use."""
    if plugin.api_version not in VERSIONS:
        raise KecsError(
            f"the credential plugin {plugin.command!r} speaks {plugin.api_version or 'no version'},"
            f" which is not {' or '.join(VERSIONS)}",
            "update the plugin and its entry in the kubeconfig",
            ExitCode.UNREACHABLE,
        )
    if plugin.interactive_mode == "Always":
        raise KecsError(
            f"the credential plugin {plugin.command!r} needs a terminal (interactiveMode: Always),"
            " and KECS works in the background",
            "use `interactiveMode: IfAvailable`, or a user with a token or a client certificate",
            ExitCode.UNREACHABLE,
        )


def run(plugin: Plugin, folder: Path, cluster: dict[str, Any] | None, environ: Mapping[str, str]) -> Issued:
    """Run the plugin and return what it prints. Raises `NoCredentials`.

    A command with a slash is relative to `folder`, the kubeconfig's. `cluster` is told to it when it asks
    for that.
    """
    command = plugin.command
    if os.sep in command:
        command = str(folder / command)
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info and cluster is not None:
        spec["cluster"] = cluster
    info = {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}
    environment = {
        **environ,
        **{variable.name: variable.value for variable in plugin.env or []},
        "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode(),
    }
    try:
        done = subprocess.run(
            [command, *(plugin.args or [])],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoCredentials(
            f"the credential plugin {plugin.command!r} did not end within {TIMEOUT:.0f} s",
            plugin.install_hint or None,
        ) from None
    except OSError as error:
        raise NoCredentials(
            f"the credential plugin {plugin.command!r} cannot be run: {error.strerror or error}",
            plugin.install_hint or f"install {plugin.command}, or put it on the PATH that `kecs start` sees",
        ) from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        said = f": {words[-1][:300]}" if words else ""
        raise NoCredentials(
            f"the credential plugin {plugin.command!r} failed with exit code {done.returncode}{said}",
            "run it by hand; often a login has expired",
        )
    return _issued(plugin, done.stdout)


def _issued(plugin: Plugin, output: bytes) -> Issued:
    try:
        credential = msgspec.json.decode(output, type=_Credential)
    except (msgspec.MsgspecError, ValueError):
        raise misbehaved(plugin, "what it prints is not an ExecCredential") from None
    if credential.kind != "ExecCredential" or credential.api_version != plugin.api_version:
        raise misbehaved(plugin, f"it does not print an ExecCredential of {plugin.api_version}")
    status = credential.status
    if status is None or not (status.token or status.client_certificate_data):
        raise misbehaved(plugin, "it gave neither a token nor a client certificate")
    if bool(status.client_certificate_data) != bool(status.client_key_data):
        raise misbehaved(plugin, "it gave a client certificate without its key, or a key alone")
    expires = status.expiration_timestamp
    return Issued(
        status.token,
        status.client_certificate_data,
        status.client_key_data,
        expires.timestamp() if expires else None,
    )


def misbehaved(plugin: Plugin, how: str) -> NoCredentials:
    """Return the error for a plugin that ran and gave nothing that can be used."""
    return NoCredentials(
        f"the credential plugin {plugin.command!r} is of no use: {how}", plugin.install_hint or None
    )
