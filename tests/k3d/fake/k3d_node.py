"""The scripted `k3d node list` and `k3d node edit`: the latter renames, creates, stops, starts and deletes.

Each step is one request to Docker, so that two edits at once, and one that is killed, leave what they left in
the recordings.
"""

import json
import os
import time
from pathlib import Path

import daemon
import specs
from k3d_cluster import listed
from world import DockerError, Fatal


def list_nodes(world, names, flags):
    try:
        nodes = [each for each in listed(world, "app:k3d") if each["cluster"]]
    except DockerError as error:
        raise Fatal(f"runtime failed to list nodes: {error}") from None
    if text := world.fault("node_list_says"):
        print(text)
        return
    nodes.sort(key=lambda each: each["created"], reverse=True)
    if flags.one("-o", flags.one("--output", "")) == "json":
        print(json.dumps([_as_json(each) for each in nodes]))
        return
    print("NAME                    ROLE           CLUSTER    STATUS")
    for each in nodes:
        print(f"{each['name']}   {each['role']}   {each['cluster']}   {each['status']}")


def _as_json(node):
    ports = {}
    for address, host_port, container_port, is_api in node["ports"]:
        # The API's port has no protocol in its key.
        key = str(container_port) if is_api else f"{container_port}/tcp"
        ports.setdefault(key, []).append({"HostIp": address, "HostPort": str(host_port)})
    environment = [
        "K3S_KUBECONFIG_OUTPUT=/output/kubeconfig.yaml",
        "PATH=/bin:/usr/sbin:/usr/bin:/sbin:/bin/aux",
    ]
    token = node["labels"].get("k3d.cluster.token", "")
    document = {
        "name": node["name"],
        "role": node["role"],
        "image": "sha256:fdc0354f59ff39aef2bd3ff5e303b7244ebeb7559477302d6bb2e30b73dbbf47",
        "volumes": [f"k3d-{node['cluster']}-images:/k3d/images"],
        "env": [*([f"K3S_TOKEN={token}"] if node["role"] == "server" else []), *environment],
        "Cmd": ["server", "--tls-san", "127.0.0.1"] if node["role"] == "server" else None,
        "portMappings": ports,
        "restart": True,
        "created": daemon.moment(node["created"]),
        # k3d copies labels of its own only.
        "runtimeLabels": {key: value for key, value in node["labels"].items() if key.startswith("k3d")},
        "Networks": [node["network"]],
        "ExtraHosts": None,
        "State": {"Running": node["status"] == "running", "Status": node["status"], "Started": ""},
        "IP": {"IP": "172.30.0.2" if node["status"] == "running" else "", "Static": False},
        "K3dEntrypoint": False,
    }
    if not ports:
        del document["portMappings"]
    return document


def edit(world, names, flags):
    name = names[0]
    add, remove = flags.all("--port-add"), flags.all("--port-delete")
    if remove and world.config.get("k3d_version", "v5.9.0") < "v5.9":
        flags.unknown("--port-delete")
    if add and remove:
        raise Fatal("Cannot combine port addition and deletion")
    wanted = [port for spec in add for port in _parse(spec)]
    unwanted = [port for spec in remove for port in _parse(spec)]
    try:
        daemon.check_up(world)
    except DockerError as error:
        raise Fatal(
            f"failed to get node '{name}': failed to get container for node '{name}': Failed to list containers: {error}"
        ) from None
    old = daemon.by_name(world.look(), name)
    if old is None:
        raise Fatal(
            f"failed to get node '{name}': failed to get container for node '{name}': Didn't find container for node"
            f" '{name}'"
        )
    if old["role"] != "loadbalancer":
        raise Fatal("Currently only the loadbalancer can be updated!")
    _note_overlap(world)
    world.step("edit:looked")
    _replace(world, old, [port for port in _merged(old["ports"], wanted) if port not in unwanted])


def _parse(spec):
    try:
        return specs.parse(spec)
    except ValueError as error:
        raise Fatal(f"Failed to parse port spec '{spec}': {error}") from None


def _merged(ports, more):
    """The API's own entry has another key than `6443/tcp`, so a delete of it finds nothing."""
    return ports + [port for port in more if port not in ports]


def _note_overlap(world):
    """Record when another edit runs: KECS must never have two."""
    with world.transaction() as state:
        others = [pid for pid in state.get("editing", []) if _alive(pid)]
        if others:
            world.record(overlap=others)
        state["editing"] = [*others, world.pid]


def _alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _five_letters():
    # `random` would take longer to import than the whole program to run.
    return "".join(chr(97 + byte % 26) for byte in os.urandom(5))


def _replace(world, old, ports):
    name = old["name"]
    aside = f"{name}-{_five_letters()}"
    world.info(f"Renaming existing node {name} to {aside}...")
    _fatally(daemon.rename, world, old["id"], aside)
    world.step("edit:renamed")
    world.info(f"Creating new node {name}...")
    try:
        world.sleep(0.05)
        new = daemon.create(
            world,
            name=name,
            role="loadbalancer",
            cluster=old["cluster"],
            network=old["network"],
            ports=ports,
            labels=old["labels"],
            image=old["image"],
        )
    except DockerError as error:
        try:
            daemon.rename(world, old["id"], name)
        except DockerError as second:
            raise Fatal(
                f"Failed to create new node. Also failed to rename {aside} back to {name}: {second}"
            ) from None
        raise Fatal(f"Failed to create new node. Brought back old node: {error}") from None
    world.step("edit:created")
    world.info(f"Stopping existing node {aside}...")
    if daemon.by_name(world.look(), aside) is None:
        raise Fatal(
            f"runtime failed to stop node '{aside}': failed to get container for node '{aside}': Didn't find container for"
            f" node '{aside}'"
        )
    if world.look()["containers"][old["id"]]["status"] == "running":
        with world.transaction() as state:  # Docker goes on with it when this program is killed
            state["containers"][old["id"]].update(dies_at=time.time() + world.scaled(10.0), dies_with=137)
        world.step("edit:stopping")
        daemon.stop(world, old["id"], daemon.STOP_TIMEOUT, 137)
    world.info(f"Starting new node {name}...")
    world.info(f"Starting node '{name}'")
    try:
        daemon.start(world, new)
    except DockerError as error:
        _back(world, old, name, new, error)
    world.step("edit:started")
    world.sleep(6.4)
    world.info(f"Deleting old node {aside}...")
    _fatally(daemon.remove, world, old["id"], force=True)
    world.info(f"Successfully updated {aside}")


def _back(world, old, name, new, error):
    """k3d's roll-back: it looks at the state that the old node had before, so it does not start it again."""
    words = (
        f"runtime failed to start node '{name}': docker failed to start container for node '{name}': {error}"
    )
    _fatally(daemon.remove, world, new, force=True)
    _fatally(daemon.rename, world, old["id"], name)
    if old["status"] == "running":
        world.info(f"Node {name} is already running")
        raise Fatal(f"Failed to start new node. Rolled back: {words}")
    world.info(f"Starting node '{name}'")
    try:
        daemon.start(world, old["id"])
    except DockerError as second:
        raise Fatal(
            "Failed to start new node. Also failed to restart old node: runtime failed to start node"
            f" '{name}': docker failed to start container for node '{name}': {second}"
        ) from None
    raise Fatal(f"Failed to start new node. Rolled back: {words}")


def _fatally(request, world, *words, **options):
    try:
        request(world, *words, **options)
    except DockerError as error:
        raise Fatal(str(error)) from None
