"""What stands for docker-proxy: listens on a container's published ports as long as the container runs.

A connect always succeeds. Then the bytes go to the backend of the container port (`backends.json`), or the
connection is reset: nothing listens there, or the load balancer's nginx is not up yet.
"""

import contextlib
import fcntl
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from world import World

READY_AFTER = 6.0


def main():
    world, identity, ready = World(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    container = world.look()["containers"][identity]
    (world.folder / "proxies").mkdir(exist_ok=True)
    mine = (world.folder / "proxies" / identity).open("w")
    fcntl.flock(mine, fcntl.LOCK_EX)
    mine.write(str(os.getpid()))
    mine.flush()
    opens_at = time.time() + (world.scaled(READY_AFTER) if container["role"] == "loadbalancer" else 0.0)
    selector = selectors.DefaultSelector()
    for address, host_port, container_port, *_ in container["ports"]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, host_port))
        listener.listen(64)
        selector.register(listener, selectors.EVENT_READ, container_port)
    os.write(ready, b"\n")
    os.close(ready)
    while True:
        for key, _ in selector.select(0.1):
            client, _ = key.fileobj.accept()
            backend = _backend(world, key.data) if time.time() >= opens_at else None
            threading.Thread(target=_serve, args=(client, backend), daemon=True).start()
        one = world.look()["containers"].get(identity)
        if one is None or one["status"] != "running":
            return


def _backend(world, port):
    try:
        return json.loads((world.folder / "backends.json").read_text()).get(str(port))
    except FileNotFoundError:
        return None


def _serve(client, backend):
    try:
        server = socket.create_connection(tuple(backend), 5) if backend else None
    except OSError:
        server = None
    if server is None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        return
    server.settimeout(None)
    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
    back.start()
    _pump(client, server)
    back.join()
    client.close()
    server.close()


def _pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


main()
