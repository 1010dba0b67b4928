"""A WebSocket server for tests: it says every message again, in capitals, with the host that was asked for.

Environment: PORT.
"""

from __future__ import annotations

import os
import socketserver

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage


class Echo(socketserver.BaseRequestHandler):
    """One client."""

    def handle(self) -> None:
        connection, host = WSConnection(ConnectionType.SERVER), ""
        while data := self.request.recv(65536):
            connection.receive_data(data)
            for event in connection.events():
                if isinstance(event, Request):
                    host = event.host
                    self.request.sendall(connection.send(AcceptConnection()))
                elif isinstance(event, TextMessage):
                    self.request.sendall(connection.send(TextMessage(f"{event.data.upper()} {host}")))
                elif isinstance(event, CloseConnection):
                    self.request.sendall(connection.send(event.response()))
                    return


class Server(socketserver.ThreadingTCPServer):
    """All of them."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
