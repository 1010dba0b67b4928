"""A server of UDP that answers each datagram with the time, and says which task it is.

KECS tells the task by `PORT` where to listen. On SIGTERM it ends: datagrams go to other tasks by then.
"""

import os
import signal
import socket
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
me = os.environ.get("KECS_TASK_ARN", "?").rpartition("/")[2][:8]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", int(os.environ["PORT"])))
    while True:
        said, client = server.recvfrom(65535)
        now = time.strftime("%H:%M:%S")
        answer = f"{now}, {len(said)} bytes heard, version {os.environ.get('VERSION', '?')}, task {me}"
        server.sendto(answer.encode(), client)
