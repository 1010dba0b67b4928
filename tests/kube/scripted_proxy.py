"""An HTTP proxy that CONNECTs, and notes to where and for whom. On threads, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class ScriptedProxy:
    def __init__(self):
        self.targets = []
        self.logins = []
        self.refuses = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = []
        self._sockets = []
        self._closed = False
        self._start(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Go away with every connection."""
        if self._closed:
            return
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, name="scripted proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._sockets.append(sock)
                self._start(self._serve, sock)

    def _serve(self, client):
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(65536)):
                    return
                head += data
            first, *lines = head.decode().split("\r\n")
            method, target, _ = first.split(" ")
            assert method == "CONNECT"
            self.targets.append(target)
            self.logins += [
                line.split(" ")[2] for line in lines if line.lower().startswith("proxy-authorization:")
            ]
            if self.refuses:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = target.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as server:
                self._sockets.append(server)
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                _copy(client, server)


def _copy(one, other):
    """Copy both ways until either side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                if not (data := key.fileobj.recv(65536)):
                    return
                key.data.sendall(data)
