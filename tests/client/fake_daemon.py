"""A daemon that does as `$KECS_FAKE` says: what `launch` starts in these tests.

`python fake_daemon.py agent|controlplane --home H --instance N [--ready-fd FD] [--stop]`. `KECS_FAKE` is
a JSON object: daemon -> what it does. Without an entry it becomes ready, serves, and leaves when told to.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

import kecs
from kecs import files
from kecs.client import instance as instances
from kecs.client import launch
from kecs.paths import InstancePaths

DAEMON = sys.argv[1]
OPTIONS = dict(zip(sys.argv[2:-1], sys.argv[3:], strict=True))
PATHS = InstancePaths(Path(OPTIONS["--home"]), OPTIONS["--instance"])


def main() -> int:
    does = json.loads(os.environ.get("KECS_FAKE", "{}")).get(DAEMON, {})
    if "--stop" in sys.argv:
        (PATHS.root / "tasks-ended").touch()
        return does.get("stop", 0)
    (PATHS.root / f"{DAEMON}-starts").open("a").write(f"{os.getpid()}\n")
    if "trace" in does:
        raise RuntimeError(does["trace"])
    if "error" in does:
        record = {"level": "info", "message": "beginning"}, {"level": "error", "message": does["error"]}
        record[1].update({"hint": does["hint"]} if "hint" in does else {})
        print("\n".join(json.dumps(line) for line in record), file=sys.stderr, flush=True)
        return does.get("code", 1)
    lock = files.try_lock(launch.lock_of(DAEMON, PATHS))
    if lock is None:
        return 0
    if does.get("hang"):
        time.sleep(60)
    time.sleep(does.get("listens_after", 0.0))
    (PATHS.agent_pid if DAEMON == "agent" else PATHS.controlplane_pid).write_text(str(os.getpid()))
    address = launch.socket_of(DAEMON, PATHS)
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        instance = instances.read(PATHS)
        if DAEMON == "controlplane" and instance is not None and not instance.api_port:
            instances.change(PATHS, chosen_port)
        if "--ready-fd" in OPTIONS:
            os.write(int(OPTIONS["--ready-fd"]), b"ready\n")
            os.close(int(OPTIONS["--ready-fd"]))
        if does.get("dies"):
            return 1
        serve(listener, does)
    return 0


def chosen_port(instance):
    return msgspec.structs.replace(instance, api_port=5373)


def serve(listener: socket.socket, does) -> None:
    left = False
    while not left:
        connection, _ = listener.accept()
        with connection:
            if does.get("silent"):
                time.sleep(60)
            left = (answer_agent if DAEMON == "agent" else answer_controlplane)(connection, does)


def answer_agent(connection: socket.socket, does) -> bool:
    results = {
        "agent.hello": {
            "version": does.get("version", kecs.__version__),
            "pid": os.getpid(),
            "instance": PATHS.name,
            "instanceId": "00000000",
        },
        "agent.status": {
            "version": kecs.__version__,
            "pid": os.getpid(),
            "startedAt": time.time(),
            "forwards": 0,
            "controlplane": "connected",
            "memory": 40_000_000,
            "warnings": does.get("warnings", []),
        },
        "forward.list": {"forwards": does.get("forwards", []), "warnings": does.get("warnings", [])},
        "forward.stop": {"forwards": does.get("forwards", [])},
        "forward.start": {
            "forwards": [{"forward": row, "created": True} for row in does.get("forwards", [])]
        },
        "forward.subscribe": {"forwards": does.get("forwards", [])},
        "forward.apply": does.get("apply", {"steps": []}),
        "forward.down": {"forwards": does.get("forwards", [])},
        "forward.export": does.get("export", {"forwards": []}),
        "names.open": {"port": 20009},
        "names.close": {"port": None},
        "agent.shutdown": {},
    }
    for line in connection.makefile("rb"):
        request = json.loads(line)
        (PATHS.forwards / "asked").open("a").write(line.decode())
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if error := does.get("refuses"):
            answer["error"] = error
        else:
            answer["result"] = results[request["method"]]
        connection.sendall(json.dumps(answer).encode() + b"\n")
        if request["method"] == "agent.shutdown":
            return True
        if request["method"] == "forward.subscribe" and "changes" in does:
            return tell(connection, does["changes"])
    return False


def tell(connection: socket.socket, changes) -> bool:
    """Tell what changed, then leave as a person stops the instance."""
    for change in changes:
        line = {"jsonrpc": "2.0", "method": "forward.changed", "params": change}
        connection.sendall(json.dumps(line).encode() + b"\n")
    instances.change(PATHS, lambda was: msgspec.structs.replace(was, desired="stopped"))
    return True


def answer_controlplane(connection: socket.socket, does) -> bool:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return False
        data += more
    path = data.split()[1].decode().partition("?")[0]
    status = {
        "version": kecs.__version__,
        "pid": os.getpid(),
        "instance": PATHS.name,
        "instanceId": "00000000",
        "runtime": "local",
        "region": "us-east-1",
        "apiPort": 5373,
        "startedAt": time.time(),
        "clusters": 1,
        "services": 2,
        "tasksRunning": 3,
        "tasksPending": 0,
        "memory": 100_000_000,
        "agent": {"state": "absent", "detail": None},
        **does.get("status", {}),
    }
    bodies = {
        "/_kecs/status": [status],
        "/_kecs/endpoints": [{"type": "snapshot", "version": 1, "targets": does.get("targets", [])}],
        "/_kecs/ps": [does.get("ps", {"services": [], "tasks": []})],
        "/_kecs/explain": [{"title": "t", "facts": ["f"], "withoutEffect": ["w"], "advice": ["a"]}],
        "/_kecs/logs": does.get("logs", []),
        "/_kecs/shutdown": [{"text": "ending 3 tasks"}, {"text": "", "done": True}],
    }
    (PATHS.root / "asked").open("a").write(data.split(b"\r\n")[0].decode() + "\n")
    refusal = does.get("refuses")
    body = "".join(json.dumps(line) + "\n" for line in ([refusal] if refusal else bodies[path])).encode()
    head = "HTTP/1.1 409 Conflict" if refusal else "HTTP/1.1 200 OK"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
    connection.sendall(f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n")
    return path == "/_kecs/shutdown"


if __name__ == "__main__":
    sys.exit(main())
