"""What a person asked of an instance: `instance.yaml`, read and changed by all faces.

`desired` is written before anything is started or told to stop; a daemon that reads `stopped` starts
nobody. Every change is a read-change-write under `instance.lock`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from kecs import files
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths, instances

VERSION = 1
Desired = Literal["running", "stopped"]
ImportImages = Literal["auto", "never"]


class Kubernetes(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The cluster of an instance with the runtime `kubernetes`, chosen at its first start."""

    kubeconfig: str
    """Absolute path of the file that names it."""
    context: str
    cluster_uid: str
    """UID of its namespace `kube-system`: what is behind the context must stay the same cluster."""


class K3d(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The cluster that KECS makes for an instance with the runtime `k3d`: chosen at its first start."""

    cluster: str
    """`kecs-<instance>`: its name for k3d."""
    api_port: int
    """Port of the cluster's API on 127.0.0.1, published on the server itself."""
    balancer_api_port: int | None = None
    """The API's port on k3d's load balancer, which KECS does not use; None without one."""
    load_balancer: bool = False
    agents: int = 0
    """Nodes beside the server."""
    image: str | None = None
    """Image of the nodes (`--k3s-image`); None: the one that k3d takes by default."""
    k3s_args: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    created: bool = False
    """False: `k3d cluster create` did not come to its end; what is there of it is of no use."""
    import_images: ImportImages = "auto"
    """Whether images that only the local Docker has are brought into the nodes."""
    docker: dict[str, str] = {}
    """`DOCKER_*` of the environment at the first start: which Docker the cluster lives in."""


class Instance(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=False):
    """The contents of `instance.yaml`."""

    version: int = VERSION
    name: str
    id: str
    """Random, 8 hexadecimal digits: whose objects these are, whatever the name."""
    runtime: str = "local"
    region: str
    api_port: int
    """Port of the ECS API on 127.0.0.1, kept for ever."""
    desired: Desired = "stopped"
    ended: bool = False
    """A `kecs stop` came to its end: no task is left to be looked for."""
    agent: Desired = "running"
    """`stopped` after `kecs port-forward agent stop`."""
    access_key_id: str
    """The instance's random access key id; with `require_key` the API asks for it."""
    require_key: bool = False
    environment: dict[str, str] = {}
    """PATH, HOME, USER, LANG, LC_*, TMPDIR at `kecs start`: what a local process gets."""
    directory: str
    """Where `kecs start` was called: the working directory of local processes."""
    knobs: dict[str, float] = {}
    """healthyAfter, readyTimeout, drain, timeScale where they were set."""
    auto: str | None = None
    """Why `--runtime auto` chose this runtime, a sentence; None: a person named it."""
    kubernetes: Kubernetes | None = None
    """None on `local`, and on `k3d` until the cluster is there."""
    k3d: K3d | None = None
    """None unless the runtime is `k3d`."""
    node_ports: str | None = None
    """`FIRST-LAST`: where node ports are taken from; None: from the range that Kubernetes has by default."""
    published: str | None = None
    """`FIRST-LAST`: those node ports that answer on 127.0.0.1 under the same number; None: there are none."""
    metrics_address: str | None = None
    """`ADDR:PORT` on which the agent serves its metrics; None: nowhere."""
    created_at: float


def read(paths: InstancePaths) -> Instance | None:
    """Read `instance.yaml`; None when the instance does not exist.

    Raises `KecsError` when the file is broken (it is not moved aside: it is a person's wish) or newer.
    """
    document = files.read_yaml(paths.instance_file, version=VERSION)
    if document is None:
        return None
    try:
        return msgspec.convert(document, Instance)
    except msgspec.ValidationError as error:
        raise files.Unreadable(paths.instance_file, str(error)) from error


def require(paths: InstancePaths) -> Instance:
    """Read `instance.yaml`; an instance that does not exist is an error (exit 3)."""
    instance = read(paths)
    if instance is None:
        known = ", ".join(f"`{name}`" for name in names(paths))
        raise KecsError(
            f"there is no instance `{paths.name}`",
            f"create it by `kecs start --instance {paths.name}`"
            + (f", or name one of {known}" if known else ""),
            ExitCode.NOT_FOUND,
        )
    return instance


def write(paths: InstancePaths, instance: Instance) -> None:
    """Replace `instance.yaml`. Call it under `files.locked(paths.instance_lock)`, or use `change`."""
    files.write_yaml(paths.instance_file, msgspec.to_builtins(instance))


def change(paths: InstancePaths, to: Callable[[Instance], Instance]) -> Instance:
    """Read, change and write `instance.yaml` under its lock; return the new one."""
    require(paths)
    with files.locked(paths.instance_lock):
        new = to(require(paths))
        write(paths, new)
    return new


def make_folders(paths: InstancePaths) -> bool:
    """Create the instance's folder, and those above, each of them private; tell whether it is new."""
    for folder in (paths.home, instances(paths.home)):
        files.make_private_folder(folder)
    try:
        paths.root.mkdir(mode=0o700)
    except FileExistsError:
        fresh = False
    except OSError as error:
        raise files.unusable(paths.root, error) from error
    else:
        fresh = True
    files.make_private_folder(paths.root)
    return fresh


def names(paths: InstancePaths) -> list[str]:
    """Return the names of all instances of this KECS_HOME, sorted."""
    folder = instances(paths.home)
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if (child / "instance.yaml").is_file())
