"""The scripted Docker daemon: containers, networks, volumes and published ports, one request a function.

Used by both programs. Requests check for the faults `docker_down` (nobody listens) and `docker_denied`.
"""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from pathlib import Path

from world import DockerError, new_id

SOCKET = "unix:///var/run/docker.sock"
DOWN = f"Cannot connect to the Docker daemon at {SOCKET}. Is the docker daemon running?"
DENIED = (
    f"permission denied while trying to connect to the Docker daemon socket at {SOCKET}: Get "
    '"http://%2Fvar%2Frun%2Fdocker.sock/v1.47/containers/json": dial unix /var/run/docker.sock: connect:'
    " permission denied"
)
STOP_TIMEOUT = 10.0


def check_up(world):
    if world.fault("docker_down"):
        raise DockerError(DOWN)
    if world.fault("docker_denied"):
        raise DockerError(DENIED)
    if (seconds := world.fault("docker_slow")) is not None:
        time.sleep(seconds)


def moment(seconds):
    """A time as Docker writes it."""
    fraction = f"{seconds % 1:.6f}"[1:]
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def by_name(state, name):
    for container in state["containers"].values():
        if name in (container["name"], container["id"], container["id"][:12]):
            return container
    return None


def of_cluster(state, cluster):
    """Newest first, as Docker lists them."""
    found = [each for each in state["containers"].values() if each["cluster"] == cluster]
    return sorted(found, key=lambda each: each["created"], reverse=True)


def create(world, **what):
    check_up(world)
    with world.transaction() as state:
        taken = by_name(state, what["name"])
        if taken:
            raise DockerError(
                "Error response from daemon: Conflict. The container name"
                f' "/{what["name"]}" is already in use by container "{taken["id"]}". You have to remove (or'
                " rename) that container to be able to reuse that name."
            )
        identity = new_id(state)
        state["containers"][identity] = {
            "id": identity,
            "status": "created",
            "exit_code": 0,
            "started_at": None,
            "created": time.time(),
            "dies_at": None,
            "dies_with": 137,
            "ports": [],
            "images": {},
            "labels": {},
            "k3s_args": [],
            **what,
        }
        return identity


def start(world, identity):
    """Publish its ports and run it; a container that cannot have its ports stays as it was."""
    check_up(world)
    with world.transaction() as state:
        container = by_name(state, identity)
        if container is None:
            raise DockerError(f"Error response from daemon: No such container: {identity}")
        if container["status"] == "running":
            return False
        if len(networks_named(state, container["network"])) > 1:
            raise DockerError(
                f"Error response from daemon: network {container['network']} is ambiguous (2 matches found on name)"
            )
        _check_ports(world, state, container)
        container.update(status="running", started_at=time.time(), dies_at=None, exit_code=0)
        identity = container["id"]
    if world.config.get("listen") and container["ports"]:
        _hold_ports(world, identity)
    return True


def _check_ports(world, state, container):
    driver = (
        "Error response from daemon: driver failed programming external connectivity on endpoint"
        f" {container['name']} ({container['id']}): "
    )
    others = {
        (port[0], port[1])
        for other in state["containers"].values()
        if other["status"] == "running" and other["id"] != container["id"]
        for port in other["ports"]
    }
    for address, host_port, *_ in reversed(container["ports"]):
        if (address, host_port) in others:
            raise DockerError(f"{driver}Bind for {address}:{host_port} failed: port is already allocated")
    for address, host_port, *_ in container["ports"]:
        really = world.config.get("listen") and not _can_bind(address, host_port)
        if really or host_port in world.fault("taken", []):
            raise DockerError(
                f"{driver}Error starting userland proxy: listen tcp4 {address}:{host_port}: bind: address already in use"
            )


def _can_bind(address, port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address, port))
            one.listen(1)
        except OSError:
            return False
    return True


def _hold_ports(world, identity):
    """Start what stands for docker-proxy: it listens on the published ports until the container ends."""
    import subprocess  # rarely needed, long to import

    ready, theirs = os.pipe()
    program = Path(__file__).with_name("proxy.py")
    subprocess.Popen(
        [sys.executable, "-I", "-S", str(program), str(world.folder), identity, str(theirs)],
        pass_fds=(theirs,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(world.folder / "proxy.log").open("a"),
        start_new_session=True,
    )
    os.close(theirs)
    os.read(ready, 1)
    os.close(ready)


def release_ports(world, identity):
    """Wait until nobody listens on the container's ports any more."""
    path = world.folder / "proxies" / identity
    if not path.exists():
        return
    with path.open("r+") as file:
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.kill(int(file.read()), signal.SIGKILL)
        fcntl.flock(file, fcntl.LOCK_EX)
    path.unlink(missing_ok=True)


def stop(world, identity, seconds, code):
    """Stop it, which takes `seconds`; Docker goes on when the one who asked is killed meanwhile."""
    check_up(world)
    with world.transaction() as state:
        container = by_name(state, identity)
        if container is None:
            raise DockerError(f"Error response from daemon: No such container: {identity}")
        if container["status"] != "running":
            return
        container.update(dies_at=time.time() + world.scaled(seconds), dies_with=code)
        identity = container["id"]
    world.sleep(seconds)
    release_ports(world, identity)
    with world.transaction() as state:
        if identity in state["containers"]:
            state["containers"][identity].update(status="exited", exit_code=code, dies_at=None)


def kill(world, identity):
    check_up(world)
    with world.transaction() as state:
        container = by_name(state, identity)
        if container is None or container["status"] != "running":
            raise DockerError(
                f"Error response from daemon: Cannot kill container: {identity}: No such container: {identity}"
            )
        container.update(status="exited", exit_code=137, dies_at=None)
    release_ports(world, container["id"])


def remove(world, identity, *, force=False):
    check_up(world)
    with world.transaction() as state:
        container = by_name(state, identity)
        if container is None:
            raise DockerError(f"Error response from daemon: No such container: {identity}")
        if container["status"] == "running" and not force:
            raise DockerError(
                f'Error response from daemon: cannot remove container "/{container["name"]}": container is'
                " running: stop the container before removing or force remove"
            )
        if container["name"] in world.fault("undeletable", []):
            raise DockerError(
                f'Error response from daemon: cannot remove container "/{container["name"]}": could not kill:'
                " tried to kill container, but did not receive an exit event"
            )
        del state["containers"][container["id"]]
    release_ports(world, container["id"])


def rename(world, identity, name):
    check_up(world)
    with world.transaction() as state:
        container = by_name(state, identity)
        if container is None:
            raise DockerError(f"Error response from daemon: No such container: {identity}")
        taken = by_name(state, name)
        if taken and taken["id"] != container["id"]:
            raise DockerError(
                "Error response from daemon: Error when allocating new name: Conflict. The container name"
                f' "/{name}" is already in use by container "{taken["id"]}". You have to remove (or rename)'
                " that container to be able to reuse that name."
            )
        container["name"] = name


def networks_named(state, name):
    return [identity for identity, each in state["networks"].items() if each == name]


def create_network(world, name):
    """Docker lets two networks have one name; k3d looks first, and two that look at once see none."""
    check_up(world)
    with world.transaction() as state:
        state["networks"][new_id(state)] = name


def remove_network(world, name):
    check_up(world)
    with world.transaction() as state:
        found = [name] if name in state["networks"] else networks_named(state, name)
        found = found or [each for each in state["networks"] if each.startswith(name)]
        if not found:
            raise DockerError(f"Error response from daemon: network {name} not found")
        if len(found) > 1:
            raise DockerError(
                f"Error response from daemon: network {name} is ambiguous (2 matches found based on name)"
            )
        if any(
            each["network"] == state["networks"][found[0]] and each["status"] == "running"
            for each in state["containers"].values()
        ):
            raise DockerError(
                f"Error response from daemon: error while removing network: network {name} has active endpoints"
            )
        if world.fault("undeletable_network"):
            raise DockerError(
                f"Error response from daemon: error while removing network: {name}: device busy"
            )
        del state["networks"][found[0]]


def create_volume(world, name):
    check_up(world)
    with world.transaction() as state:
        if name not in state["volumes"]:
            state["volumes"].append(name)


def remove_volume(world, name):
    check_up(world)
    with world.transaction() as state:
        if name not in state["volumes"]:
            raise DockerError(f"Error response from daemon: get {name}: no such volume")
        if any(
            each["role"] in ("server", "agent", "loadbalancer") and name == f"k3d-{each['cluster']}-images"
            for each in state["containers"].values()
        ):
            raise DockerError(f"Error response from daemon: remove {name}: volume is in use - [{name}]")
        state["volumes"].remove(name)
