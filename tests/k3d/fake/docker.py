"""The scripted `docker`: the commands that KECS uses, on the state that it shares with the scripted `k3d`."""

import json
import re
import sys
import time
from pathlib import Path

import daemon
from k3d_image import keep
from world import DockerError

VALUED = ("--filter", "--format", "-f", "--type", "-n", "-t", "--time", "-o", "--name", "--label")


def main(world, words):
    try:
        code = _dispatch(world, list(words))
    except DockerError as error:
        print(error, file=sys.stderr)
        return 1
    return code or 0


def _dispatch(world, words):
    command = words.pop(0)
    if command in ("network", "volume", "image", "container"):
        command = f"{command} {words.pop(0)}"
    if command == "exec":
        return _exec(world, words)
    options, names = _split(command, words)
    daemon.check_up(world)
    match command:
        case "version":
            _print(
                options,
                {
                    "Client": {"Version": "27.3.1"},
                    "Server": {"Version": "27.3.1", "Os": "linux", "Arch": "amd64"},
                },
            )
        case "info":
            print("Server Version: 27.3.1")
        case "ps":
            for each in _filtered(world, options):
                if each["status"] == "running" or "-a" in options:
                    row = {"ID": each["id"][:12], "Names": each["name"], "State": each["status"]}
                    row["Labels"] = each["labels"]
                    _print(options, {**row, "Ports": _ports(each) if each["status"] == "running" else ""})
        case "create":
            labels = dict(text.split("=", 1) for text in options["--label"])
            [name] = options["--name"]
            cluster, role = labels.get("k3d.cluster", ""), labels.get("k3d.role", "")
            network = f"k3d-{cluster}"
            print(
                daemon.create(
                    world,
                    name=name,
                    cluster=cluster,
                    role=role,
                    network=network,
                    image=names[0],
                    labels=labels,
                )
            )
        case "inspect" | "container inspect":
            return _inspect(world, options, names)
        case "rm":
            force = "-f" in options or "--force" in options
            return _each(lambda name: daemon.remove(world, name, force=force), names)
        case "rename":
            daemon.rename(world, *names)
        case "kill":
            return _each(lambda name: daemon.kill(world, name), names)
        case "start":
            return _each(lambda name: daemon.start(world, name), names)
        case "stop":
            return _each(lambda name: daemon.stop(world, name, daemon.STOP_TIMEOUT, 137), names)
        case "network ls":
            for identity, name in world.look()["networks"].items():
                if _fits(options, name):
                    _print(options, {"ID": identity[:12], "Name": name})
        case "network rm":
            networks = world.look()["networks"]
            return _each(
                lambda name: daemon.remove_network(
                    world, next((one for one in networks if one.startswith(name) and len(name) == 12), name)
                ),
                names,
            )
        case "volume ls":
            for name in world.look()["volumes"]:
                if _fits(options, name):
                    _print(options, {"Name": name})
        case "volume rm":
            return _each(lambda name: daemon.remove_volume(world, name), names)
        case "save":
            identity = world.config.get("images", {}).get(names[0])
            if identity is None:
                raise DockerError(f"Error response from daemon: reference does not exist: {names[0]}")
            Path(options["-o"][0]).write_text(json.dumps({names[0]: identity}))
        case "image inspect":
            identity = world.config.get("images", {}).get(names[0])
            if identity is None:
                print("[]")
                raise DockerError(f"Error: No such image: {names[0]}")
            _print(options, {"Id": identity})
        case _:
            print(f"docker: '{command}' is not a docker command.\nSee 'docker --help'", file=sys.stderr)
            return 1
    return 0


def _split(command, words):
    options, names = {}, []
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if key in VALUED and not (key == "-f" and command == "rm"):
            options.setdefault(key, []).append(value if equals else words.pop(0))
        elif word.startswith("-"):
            options[word] = True
        else:
            names.append(word)
    return options, names


def _ports(container):
    """`127.0.0.1:30000-30050->30000-30050/tcp, 127.0.0.1:18080->30081/tcp`: what follows on is put together."""
    shown = []
    for address, host, inner, *_ in sorted(container["ports"], key=lambda each: (each[0], each[1])):
        if shown and (address, host, inner) == (shown[-1][0], shown[-1][2] + 1, shown[-1][4] + 1):
            shown[-1][2], shown[-1][4] = host, inner
        else:
            shown.append([address, host, host, inner, inner])
    return ", ".join(
        f"{address}:{a}->{c}/tcp" if a == b else f"{address}:{a}-{b}->{c}-{d}/tcp"
        for address, a, b, c, d in shown
    )


def _filtered(world, options):
    found = sorted(world.look()["containers"].values(), key=lambda each: each["created"], reverse=True)
    for text in options.get("--filter", []):
        kind, _, rest = text.partition("=")
        key, _, value = rest.partition("=")
        if kind == "label":
            own = {"k3d.cluster": "cluster"}
            found = [
                each for each in found if (each["labels"].get(key) or each.get(own.get(key, ""), "")) == value
            ]
        elif kind == "name":
            found = [each for each in found if re.search(rest, each["name"])]
    return found


def _fits(options, name):
    return all(re.search(text.partition("=")[2], name) for text in options.get("--filter", []))


def _inspect(world, options, names):
    code = 0
    documents = []
    for name in names:
        container = daemon.by_name(world.look(), name)
        if container is None:
            print(f"Error: No such container: {name}", file=sys.stderr)
            code = 1
            continue
        moment = container["started_at"]
        document = {
            "Id": container["id"],
            "Name": f"/{container['name']}",
            "State": {
                "Status": container["status"],
                "Running": container["status"] == "running",
                "ExitCode": container["exit_code"],
                "StartedAt": daemon.moment(moment) if moment else "0001-01-01T00:00:00Z",
            },
            "Config": {"Labels": container["labels"]},
            "HostConfig": {"PortBindings": _bindings(container)},
        }
        if "--format" in options or "-f" in options:
            _print(options, document)
        else:
            documents.append(document)
    if documents:
        print(json.dumps(documents))
    return code


def _bindings(container):
    bindings = {}
    for address, host_port, container_port, *_ in container["ports"]:
        bindings.setdefault(f"{container_port}/tcp", []).append(
            {"HostIp": address, "HostPort": str(host_port)}
        )
    return bindings


def _print(options, document):
    """Render the few forms of Go templates that KECS uses."""
    templates = options.get("--format") or options.get("-f")
    if not templates:
        print(json.dumps(document))
        return

    def value(match):
        if match["label"]:
            return str(document["Labels"].get(match["name"], ""))
        path, key = match["path"] or match["of"], match["key"]
        found = document
        for part in path.strip(".").split("."):
            found = found[part]
        if key is not None:
            found = found.get(key, "")
        return json.dumps(found) if match["json"] else str(found)

    pattern = (
        r'\{\{(?P<json>json )?(?:\.(?P<label>Label) "(?P<name>[^"]*)"|(?P<path>\.[\w.]+)'
        r'|index (?P<of>\.[\w.]+) "(?P<key>[^"]*)")\}\}'
    )
    print(re.sub(pattern, value, templates[0]))


def _each(request, names):
    code = 0
    for name in names:
        try:
            request(name)
            print(name)
        except DockerError as error:
            print(error, file=sys.stderr)
            code = 1
    return code


def _exec(world, words):
    while words[0].startswith("-"):
        words.pop(0)
    node, *command = words
    daemon.check_up(world)
    container = daemon.by_name(world.look(), node)
    if container is None:
        raise DockerError(f"Error response from daemon: No such container: {node}")
    if container["status"] != "running":
        raise DockerError(f"Error response from daemon: Container {container['id']} is not running")
    if world.fault("ctr_fails"):
        print(
            'ctr: failed to dial "/run/k3s/containerd/containerd.sock": context deadline exceeded',
            file=sys.stderr,
        )
        return 1
    if command[0] == "ctr" and "ls" in command:
        if "-q" in command:
            print("\n".join(container["images"]))
            return 0
        print("REF TYPE DIGEST SIZE PLATFORMS LABELS")
        for name, digest in container["images"].items():
            print(
                f"{name} application/vnd.oci.image.manifest.v1+json {digest} 7.5 MiB linux/amd64 io.cri-containerd.image=managed"
            )
        return 0
    if command[0] == "ctr" and "content" in command:
        manifest = container.get("manifests", {}).get(command[-1])
        if manifest is None:
            print(f"ctr: content digest {command[-1]}: not found", file=sys.stderr)
            return 1
        print(json.dumps(manifest))
        return 0
    if command[0] == "ctr" and "import" in command:
        return _import(world, container)
    print(
        f'OCI runtime exec failed: exec failed: "{command[0]}": executable file not found in $PATH',
        file=sys.stderr,
    )
    return 126


def _import(world, container):
    """`ctr images import -`: the way without k3d."""
    if "hand" in world.fault("import_hangs", []):
        time.sleep(3600)
    images = json.load(sys.stdin)
    if "hand" in world.fault("import_refused", []):
        print("ctr: unexpected EOF", file=sys.stderr)
        return 1
    with world.transaction() as state:
        for name, identity in images.items():
            keep(state["containers"][container["id"]], name, identity)
            print(f"unpacking {name}...done")
    return 0
