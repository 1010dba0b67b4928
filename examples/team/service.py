"""A service of the team: it listens on $PORT, says who it is, and finishes what it has in hand on SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType


class Page(BaseHTTPRequestHandler):
    """Answers every GET with who is speaking."""

    def do_GET(self) -> None:
        """Say which service, version and task answers."""
        task = os.environ.get("KECS_TASK_ARN", "no task").rpartition("/")[2]
        who = f"{os.environ.get('NAME', '?')}, version {os.environ.get('VERSION', '?')}"
        body = f"This is {who}, task {task[:8]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """One thread a request; all are waited for at the end."""

    daemon_threads = False
    request_queue_size = 128


def main() -> None:
    """Serve until SIGTERM."""
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Page)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
