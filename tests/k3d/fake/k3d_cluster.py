"""The scripted `k3d cluster …` and `k3d kubeconfig get`: words, order, delays and leftovers as recorded."""

import json
import os
import re
import socket
from pathlib import Path

import daemon
import specs
from world import TOKEN, VERSION, DockerError, Fatal


def listed(world, label, cluster=None):
    """The containers of a cluster, as k3d asks for them, with its words when Docker is down."""
    try:
        daemon.check_up(world)
    except DockerError as error:
        raise DockerError(
            f"docker failed to get containers with labels 'map[{label}]': failed to list containers: {error}"
        ) from None
    state = world.look()
    return daemon.of_cluster(state, cluster) if cluster else list(state["containers"].values())


def find(world, name):
    """The containers of `name`; none is fatal, and so (in the same words) is a Docker that is down."""
    try:
        nodes = [each for each in listed(world, f"k3d.cluster:{name}", name) if each["role"] != "noRole"]
    except DockerError as error:
        world.log("error", f"Failed to get nodes for cluster '{name}': {error}")
        nodes = []
    if not nodes:
        raise Fatal("No nodes found for given cluster")
    return nodes


def _check_name(name):
    head = f"Failed Cluster Configuration Validation:  provided cluster name '{name}' does not match requirements: "
    if len(name) > 32:
        raise Fatal(f"{head}Cluster name must be <= 32 characters, but has {len(name)}")
    if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?", name):
        raise Fatal(f"{head}Invalid cluster name. name {name} is not a valid hostname as per RFC 1123")


def create(world, names, flags):
    name = names[0]
    address, port = specs.api_port(flags.one("--api-port", "0.0.0.0:random"))
    _check_name(name)
    balancer = "--no-lb" not in flags
    if port == "random":
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = str(one.getsockname()[1])
    api = [address, int(port), 6443, True]
    ports = {"server": [], "loadbalancer": []}
    ports["loadbalancer" if balancer else "server"].append(api)
    for role, some, spec in map(specs.with_filter, flags.all("-p", "--port")):
        if spec.endswith("@loadbalancer"):
            world.info(
                f"portmapping '{spec.partition('@')[0]}' targets the loadbalancer: defaulting to"
                " [servers:*:proxy agents:*:proxy]"
            )
        ports[role] += some
    labels = {}
    for text in flags.all("--runtime-label"):
        pair, _, _node = text.partition("@")
        key, _, value = pair.partition("=")
        labels[key] = value
    try:
        if daemon.of_cluster(world.look(), name) and not world.fault("docker_down"):
            raise Fatal(f"Failed to create cluster '{name}' because a cluster with that name already exists")
        listed(world, f"k3d.cluster:{name}", name)
    except DockerError as error:
        world.log("error", f"Failed to get nodes for cluster '{name}': {error}")
    world.info("Prep: Network")
    try:
        _create(world, name, ports, labels, api, flags, balancer=balancer)
    except DockerError as error:
        world.log("error", str(error))
        if "--no-rollback" in flags:
            raise Fatal("Cluster creation FAILED, rollback deactivated.") from None
        world.log("error", "Failed to create cluster >>> Rolling Back")
        raise Fatal(_roll_back(world, name)) from None
    world.info(f"Cluster '{name}' created successfully!")
    world.info("You can now use it like this:")
    print(f"export KUBECONFIG=$(k3d kubeconfig write {name})\nkubectl cluster-info")
    if "--kubeconfig-update-default=false" not in flags.raw:
        _touch_default_kubeconfig()


def _create(world, name, ports, labels, api, flags, *, balancer):
    network, image_volume = f"k3d-{name}", f"k3d-{name}-images"
    try:
        daemon.check_up(world)
    except DockerError as error:
        raise DockerError(
            "Failed Cluster Preparation: Failed Network Preparation: failed to create cluster network: failed to"
            f" check for duplicate docker networks: docker failed to list networks: {error}"
        ) from None
    existing = daemon.networks_named(world.look(), network)
    world.step("create:network-looked")
    if len(existing) > 1:
        world.log(
            "warning",
            f"multiple networks with same name found, returning the first one: {network} ({existing[0]})",
        )
    if not existing:
        daemon.create_network(world, network)
        world.info(f"Created network '{network}'")
    daemon.create_volume(world, image_volume)
    world.info(f"Created image volume {image_volume}")
    world.step("create:network-made")
    world.info("Starting new tools node...")
    _tools(world, name, network)
    world.sleep(1.0)
    common = {"cluster": name, "network": network}
    k3s = flags.all("--k3s-arg")
    servers = [f"k3d-{name}-server-0"]
    agents = [f"k3d-{name}-agent-{number}" for number in range(int(flags.one("--agents", "0")))]
    for node in servers + agents:
        role = "server" if node in servers else "agent"
        world.info(f"Creating node '{node}'")
        own = {**_labels(name, role, network, api), **(labels if role == "server" else {})}
        daemon.create(
            world,
            name=node,
            role=role,
            ports=ports["server"] if role == "server" else [],
            labels=own,
            k3s_args=k3s,
            image=flags.one("--image", flags.one("-i", "rancher/k3s:v1.35.5-k3s1")),
            **common,
        )
    if balancer:
        world.info(f"Creating LoadBalancer 'k3d-{name}-serverlb'")
        daemon.create(
            world,
            name=f"k3d-{name}-serverlb",
            role="loadbalancer",
            ports=ports["loadbalancer"],
            labels=_labels(name, "loadbalancer", network, api),
            image="ghcr.io/k3d-io/k3d-proxy:5.9.0",
            **common,
        )
    world.info("Using the k3d-tools node to gather environment information")
    world.info("HostIP: using network gateway 172.18.0.1 address")
    world.step("create:nodes-created")
    _bring_up(world, name, flags, head="Failed Cluster Start: ")


def _tools(world, name, network):
    node = f"k3d-{name}-tools"
    world.info(f"Starting node '{node}'")
    try:
        daemon.create(
            world, name=node, role="noRole", cluster=name, network=network, image="ghcr.io/k3d-io/k3d-tools"
        )
        daemon.start(world, node)
    except DockerError as error:
        if "ambiguous" in str(error):
            for _ in range(2):
                world.log(
                    "warning",
                    "Failed to get network information: Error response from daemon: 2 matches found based on name:"
                    f" network {network} is ambiguous",
                )
        raise DockerError(
            f"failed to ensure tools node: failed to run k3d-tools node for cluster '{name}': failed to start node"
            f" '{node}': runtime failed to start node '{node}': docker failed to start container for node '{node}':"
            f" {error}"
        ) from None
    daemon.remove(world, node, force=True)


def _labels(name, role, network, api):
    labels = {
        "app": "k3d",
        "k3d.cluster": name,
        "k3d.cluster.imageVolume": f"k3d-{name}-images",
        "k3d.cluster.network": network,
        "k3d.cluster.network.external": "false",
        "k3d.cluster.token": TOKEN,
        "k3d.cluster.url": f"https://k3d-{name}-server-0:6443",
        "k3d.role": role,
        "k3d.server.loadbalancer": f"k3d-{name}-serverlb",
        "k3d.version": VERSION,
    }
    if role == "server":
        labels |= {
            "k3d.server.api.host": api[0],
            "k3d.server.api.hostIP": api[0],
            "k3d.server.api.port": str(api[1]),
        }
    return labels


def _seconds(text):
    match = re.fullmatch(r"(\d+)s", text)
    return float(match[1]) if match else 0.0


def _bring_up(world, name, flags, head=""):
    """What create and start have in common: servers, agents, helpers, each with its wait."""
    timeout = _seconds(flags.one("--timeout", "0s")) or 1e9
    world.info(f"Starting cluster '{name}'")
    nodes = daemon.of_cluster(world.look(), name)
    injected = _start_all(world, nodes, "server", "Starting servers...", "All servers already running.", head)
    if injected:
        folder = Path(os.environ.get("TMPDIR", "/tmp"))
        (folder / f"k3d-hostsfile-{os.getpid()}").write_text("x" * 167)
        world.step("up:server-started")
        world.sleep(3.5 + world.fault("server_slow", 0.0))
        if timeout < 3.5 + world.fault("server_slow", 0.0):
            raise DockerError(
                f"{head}Failed to start server k3d-{name}-server-0: Node k3d-{name}-server-0 failed to get ready: error"
                f" waiting for log line `k3s is up and running` from node 'k3d-{name}-server-0': stopped returning log"
                " lines: context deadline exceeded"
            )
    if not _start_all(world, nodes, "agent", "Starting agents...", None, head):
        world.info("All agents already running.")
    started = _start_all(
        world, nodes, "loadbalancer", "Starting helpers...", "All helpers already running.", head
    )
    if started:
        world.step("up:balancer-started")
        world.sleep(min(6.4, timeout))
        if timeout < 6.4 or world.fault("balancer_slow"):
            raise DockerError(
                f"{head}Failed to add one or more helper nodes: Node {started[-1]} failed to get ready: error waiting for"
                f" log line `start worker processes` from node '{started[-1]}': stopped returning log lines: context"
                " deadline exceeded"
            )
    if injected:
        world.info(
            "Injecting records for hostAliases (incl. host.k3d.internal) and for"
            f" {len(nodes)} network members into CoreDNS configmap..."
        )
        world.sleep(1.5)


def _start_all(world, nodes, role, begin, already, head):
    waiting = [each["name"] for each in nodes if each["role"] == role and each["status"] != "running"]
    if not waiting:
        if already:
            world.info(already)
        return []
    world.info(begin)
    for node in sorted(waiting, reverse=role == "loadbalancer"):
        world.info(f"Starting node '{node}'")
        try:
            if node in world.fault("unstartable", []):
                raise DockerError(
                    "Error response from daemon: failed to create task for container: OCI runtime error"
                )
            daemon.start(world, node)
        except DockerError as error:
            what = (
                "Failed to add one or more helper nodes"
                if role == "loadbalancer"
                else f"Failed to start {role} {node}"
            )
            raise DockerError(
                f"{head}{what}: runtime failed to start node '{node}': docker failed to start container for node"
                f" '{node}': {error}"
            ) from None
    return waiting


def _roll_back(world, name):
    world.info(f"Deleting cluster '{name}'")
    try:
        listed(world, f"k3d.cluster:{name}", name)
    except DockerError as error:
        world.log("error", f"Failed to get nodes for cluster '{name}': {error}")
        world.log("error", "failed to get cluster: No nodes found for given cluster")
        return "Cluster creation FAILED, also FAILED to rollback changes!"
    if world.fault("rollback_fails"):
        world.log(
            "error", "failed to delete node: Error response from daemon: removal is already in progress"
        )
        return "Cluster creation FAILED, also FAILED to rollback changes!"
    _remove(world, name)
    return "Cluster creation FAILED, all changes have been rolled back!"


def _remove(world, name):
    for container in daemon.of_cluster(world.look(), name):
        try:
            daemon.remove(world, container["id"], force=True)
        except DockerError as error:
            world.log("error", f"Failed to delete node '{container['name']}': {error}")
    leaves = world.fault("delete_leaves", [])
    if "network" not in leaves:
        world.info(f"Deleting cluster network 'k3d-{name}'")
        try:
            daemon.remove_network(world, f"k3d-{name}")
        except DockerError as error:
            world.log(
                "warning",
                f"Failed to delete cluster network 'k3d-{name}': 'docker failed to remove network 'k3d-{name}': {error}'",
            )
    if "volume" not in leaves:
        world.info("Deleting 1 attached volumes...")
        try:
            daemon.remove_volume(world, f"k3d-{name}-images")
        except DockerError as error:
            world.log("warning", f"Failed to delete volume 'k3d-{name}-images': {error}")


def start(world, names, flags):
    for name in names:
        nodes = find(world, name)
        world.info("Using the k3d-tools node to gather environment information")
        world.info("Starting new tools node...")
        try:
            _tools(world, name, nodes[0]["network"])
            world.info("HostIP: using network gateway 172.18.0.1 address")
            world.sleep(0.6)
            _bring_up(world, name, flags)
        except DockerError as error:
            raise Fatal(str(error)) from None
        world.info(f"Started cluster '{name}'")


def stop(world, names, flags):
    for name in names:
        nodes = find(world, name)
        world.info(f"Stopping cluster '{name}'")
        world.step("stop:begun")
        for node in sorted(nodes, key=lambda each: each["role"]):
            if node["status"] != "running":
                continue
            stubborn = node["role"] == "server" and world.fault("stubborn_pod")
            if node["role"] == "loadbalancer":
                daemon.stop(world, node["id"], daemon.STOP_TIMEOUT, 137)  # its shell ignores SIGQUIT
            elif stubborn:
                daemon.stop(world, node["id"], 13.0, 137)  # the drain outlasts Docker's 10 s
            else:
                daemon.stop(world, node["id"], 2.8, 143)
        if world.fault("stop_fails"):
            raise Fatal(f"failed to stop cluster '{name}'")
        world.info(f"Stopped cluster '{name}'")


def delete(world, names, flags):
    for name in names:
        nodes = []
        try:
            nodes = listed(world, f"k3d.cluster:{name}", name)
        except DockerError as error:
            world.log("error", f"Failed to get nodes for cluster '{name}': {error}")
        if not nodes or world.fault("delete_lies"):
            world.info(f"No nodes found for cluster '{name}', nothing to delete.")
            world.info("No clusters found")
            continue
        world.info(f"Deleting cluster '{name}'")
        world.sleep(1.0)
        world.step("delete:begun")
        _remove(world, name)
        world.info("Removing cluster details from default kubeconfig...")
        if not _touch_default_kubeconfig():
            world.log("warning", "Failed to remove cluster details from default kubeconfig")
            world.log(
                "warning",
                "failed to get default kubeconfig file: open ~/.kube/config: no such file or directory",
            )
        world.info("Removing standalone kubeconfig file (if there is one)...")
        world.info(f"Successfully deleted cluster {name}!")


def _touch_default_kubeconfig():
    """What k3d does to the user's kubeconfig; a test sees it by the new last line."""
    path = Path(os.environ.get("KUBECONFIG") or Path(os.environ.get("HOME", "/nonexistent"), ".kube/config"))
    if not path.exists():
        return False
    with path.open("a") as file:
        file.write("# k3d was here\n")
    return True


def list_clusters(world, names, flags):
    try:
        nodes = listed(world, "app:k3d")
    except DockerError as error:
        raise Fatal(f"runtime failed to list nodes: {error}") from None
    rows = {}
    for node in nodes:
        if node["cluster"]:
            rows.setdefault(node["cluster"], []).append(node)
    if names:
        find(world, names[0])
        rows = {names[0]: rows[names[0]]}
    if flags.one("-o", "") == "json":
        print(json.dumps([{"name": name, "nodes": [], "serversCount": 1} for name in rows]))
        return
    print("NAME       SERVERS   AGENTS   LOADBALANCER")
    for name, some in rows.items():
        servers = [each for each in some if each["role"] == "server"]
        running = sum(each["status"] == "running" for each in servers)
        has = any(each["role"] == "loadbalancer" for each in some)
        print(f"{name}   {running}/{len(servers)}       0/0      {str(has).lower()}")


def kubeconfig(world, names, flags):
    name = names[0]
    server = next((each for each in find(world, name) if each["role"] == "server"), None)
    if server is None:
        raise Fatal("failed to find server node")
    credentials = world.config.get("credentials", {})
    key = credentials.get("key", "S2VZb2ZUSEVjbHVzdGVyWFlaWlk=")
    with world.transaction() as state:
        state["asked"] = state.get("asked", 0) + 1
        late = state["asked"] <= world.fault("kubeconfig_late", 0)
    port = server["labels"]["k3d.server.api.port"]
    print("---\napiVersion: v1\nclusters:\n- cluster:")
    print(f"    certificate-authority-data: {credentials.get('ca', 'Q0FYWVpaWQ==')}")
    print(f"    server: https://{server['labels']['k3d.server.api.host']}:{port}\n  name: k3d-{name}")
    print(f"contexts:\n- context:\n    cluster: k3d-{name}\n    user: admin@k3d-{name}\n  name: k3d-{name}")
    print(f"current-context: k3d-{name}\nkind: Config")
    if late:
        return
    print(f"users:\n- name: admin@k3d-{name}\n  user:")
    if token := credentials.get("token"):
        print(f"    token: {token}")
    else:
        print(f"    client-certificate-data: {credentials.get('certificate', 'Q0VSVFhZWlpZ')}")
        print(f"    client-key-data: {key}")
