"""The scripted programs: `main.py k3d FOLDER WORDS…` and `main.py docker FOLDER WORDS…`."""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from world import TOKEN, VERSION, DockerError, Fatal, World

COMMANDS = {
    "cluster create": (
        "k3d_cluster.create",
        "--servers --agents --api-port --timeout -p --port --runtime-label --k3s-arg --image -i --registry-use",
        "--wait --no-lb --no-rollback --kubeconfig-update-default --kubeconfig-switch-context",
    ),
    "cluster start": ("k3d_cluster.start", "--timeout", "--wait"),
    "cluster stop": ("k3d_cluster.stop", "", ""),
    "cluster delete": ("k3d_cluster.delete", "", ""),
    "cluster list": ("k3d_cluster.list_clusters", "-o --output", "--no-headers"),
    "kubeconfig get": ("k3d_cluster.kubeconfig", "", ""),
    "node list": ("k3d_node.list_nodes", "-o --output", "--no-headers"),
    "node edit": ("k3d_node.edit", "--port-add --port-delete", ""),
    "image import": ("k3d_image.import_images", "-c --cluster -m --mode", "-k"),
}
"""By two words: the function, its options with a value, those without. Modules are imported when used."""


class Flags:
    def __init__(self, raw, valued, plain):
        self.raw, self._valued, self._plain = raw, valued.split(), plain.split()
        self.names, self._given = [], []
        words = list(raw)
        while words:
            word = words.pop(0)
            key, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            if key in self._valued:
                self._given.append((key, value if equals else words.pop(0)))
            elif key in self._plain:
                self._given.append((key, value or "true"))
            elif word.startswith("-"):
                self.unknown(key)
            else:
                self.names.append(word)

    def unknown(self, flag):
        print(f"Error: unknown flag: {flag}\nUsage:\n  k3d … [flags]\n", file=sys.stderr)
        raise Fatal(f"unknown flag: {flag}")

    def __contains__(self, key):
        return any(key == each and value != "false" for each, value in self._given)

    def all(self, *keys):
        return [value for key, value in self._given if key in keys]

    def one(self, key, default):
        return next(iter(reversed(self.all(key))), default)


def leaks():
    """Ways in which k3d, k3s and Docker show what nobody may see."""
    key = "S2VZb2ZUSEVjbHVzdGVyWFlaWlk="
    yield f"env [K3S_TOKEN={TOKEN} PATH=/bin]"
    yield f'labels {{"k3d.cluster.token":"{TOKEN}","k3d.role":"server"}}'
    yield f"map[k3d.cluster:x k3d.cluster.token:{TOKEN} k3d.role:server]"
    yield f"k3s server --token={TOKEN} --cluster-init"
    yield f"k3s server --token {TOKEN} --cluster-init"
    yield f"user:\n  client-certificate-data: Q0VSVFhZWlpZ\n  client-key-data: {key}\n"
    yield "certificate-authority-data: Q0FYWVpaWQ=="
    yield f"-----BEGIN EC PRIVATE KEY-----\n{key}\n-----END EC PRIVATE KEY-----"


def k3d(world, words):
    if not words or words[0] in ("--help", "-h"):
        print("Usage:\n  k3d [flags]\n  k3d [command]")
        return 0
    if words[0] == "version":
        version = world.config.get("k3d_version", VERSION)
        if "json" in words:
            print('{"k3d":"' + version + '","k3s":"v1.35.5-k3s1"}')
        else:
            print(f"k3d version {version}\nk3s version v1.35.5-k3s1 (default)")
        return 0
    command = " ".join(words[:2])
    try:
        if command not in COMMANDS:
            print(
                f'Error: unknown command "{words[0]}" for "k3d"\nRun \'k3d --help\' for usage.',
                file=sys.stderr,
            )
            raise Fatal(f'unknown command "{words[0]}" for "k3d"')
        where, valued, plain = COMMANDS[command]
        flags = Flags(words[2:], valued, plain)
        module, _, name = where.partition(".")
        getattr(__import__(module), name)(world, flags.names, flags)
    except (Fatal, DockerError) as error:
        world.log("fatal", str(error))
        return 1
    return 0


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # k3d undoes nothing when it is interrupted
    program, folder, *words = sys.argv[1:]
    world = World(folder)
    shown = {key: os.environ.get(key) for key in ("LOG_COLORS", "KUBECONFIG", "TMPDIR", "DOCKER_HOST")}
    world.record(program=program, words=words, environment=shown)
    hangs = world.fault("hang", [])
    if any(" ".join([program, *words]).startswith(each) for each in hangs):
        time.sleep(3600)
    if program == "k3d" and world.fault("leak"):
        for level in ("info", "warning", "error"):
            for text in leaks():
                world.log(level, f"Starting node with {text}")
    code = k3d(world, words) if program == "k3d" else __import__("docker").main(world, words)
    sys.stdout.flush()
    world.record(ended=True, code=code)
    return code


sys.exit(main())
