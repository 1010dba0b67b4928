"""A worker with a door for whoever debugs it: `/state` says how far it is, `/stack` what its threads do."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Work(threading.Thread):
    """Counts jobs; one that takes an hour is what is to be found."""

    def __init__(self) -> None:
        super().__init__(name="work", daemon=True)
        self.done = 0

    def run(self) -> None:
        """Do three jobs, then get stuck in the fourth."""
        for number in range(4):
            self.job(number)
            self.done += 1

    def job(self, number: int) -> None:
        """Do one job."""
        threading.Event().wait(3600 if number == 3 else 0.01)


class Door(BaseHTTPRequestHandler):
    """Answers whoever debugs."""

    work: Work

    def do_GET(self) -> None:
        """Answer `/state` and `/stack`."""
        body = (stacks() if self.path == "/stack" else state(self.work)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def state(work: Work) -> str:
    """Return which task this is, and how far it is, as JSON."""
    task = os.environ.get("KECS_TASK_ARN", "").rpartition("/")[2]
    told = {"version": os.environ.get("VERSION"), "task": task[:8], "jobsDone": work.done}
    return json.dumps(told) + "\n"


def stacks() -> str:
    """Return what each thread does now."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for number, frame in sys._current_frames().items():  # noqa: SLF001 - there is no public way
        lines.append(f"thread {names.get(number)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(lines)


def main() -> None:
    """Work, and answer whoever debugs."""
    Door.work = Work()
    Door.work.start()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9229"))), Door)
    print(f"working; to debug it: port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
