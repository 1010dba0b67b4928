"""The scripted `docker`: the commands that KECS uses, on the state that it shares with the scripted `k3d`."""

import datetime
import json
import re
import sys

import daemon
from world import DockerError

VALUED = ("--filter", "--format", "-f", "--type", "-n", "-t", "--time")


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
            _print(options, {"Client": {"Version": "27.3.1"}, "Server": {"Version": "27.3.1"}})
        case "info":
            print("Server Version: 27.3.1")
        case "ps":
            for each in _filtered(world, options):
                if each["status"] == "running" or "-a" in options:
                    _print(options, {"ID": each["id"][:12], "Names": each["name"], "State": each["status"]})
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
                "StartedAt": datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime(
                    "%Y-%m-%dT%H:%M:%S.%fZ"
                )
                if moment
                else "0001-01-01T00:00:00Z",
            },
            "Config": {"Labels": container["labels"]},
        }
        if "--format" in options or "-f" in options:
            _print(options, document)
        else:
            documents.append(document)
    if documents:
        print(json.dumps(documents))
    return code


def _print(options, document):
    """Render the few forms of Go templates that KECS uses."""
    templates = options.get("--format") or options.get("-f")
    if not templates:
        print(json.dumps(document))
        return

    def value(match):
        path, key = match["path"] or match["of"], match["key"]
        found = document
        for part in path.strip(".").split("."):
            found = found[part]
        if key is not None:
            found = found.get(key, "")
        return json.dumps(found) if match["json"] else str(found)

    pattern = r'\{\{(?P<json>json )?(?:(?P<path>\.[\w.]+)|index (?P<of>\.[\w.]+) "(?P<key>[^"]*)")\}\}'
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
    if command[0] in ("ctr", "crictl") and "ls" in command:
        print("\n".join(container["images"]))
        return 0
    print(
        f'OCI runtime exec failed: exec failed: "{command[0]}": executable file not found in $PATH',
        file=sys.stderr,
    )
    return 126
